"""What an Arrow cell becomes where there are no Arrow types: JSON values, data URIs, file extensions.

Bytes become a base64 data URI, dates, times and decimals the text that Arrow prints for them
(``2024-05-01 12:00:00.000000``), a NaN or an infinity null, and a map a list of pairs.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.core.contracts import LINE
from clipsieve.core.layout import SCORE

_SURROGATE = re.compile("[\ud800-\udfff]")

_MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), "jpg", "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png", "image/png"),
    (re.compile(rb"GIF8[79]a"), "gif", "image/gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "webp", "image/webp"),
    (re.compile(rb"II\*\0|MM\0\*"), "tif", "image/tiff"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), "bmp", "image/bmp"),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "avif", "image/avif"),
    (re.compile(rb".{4}ftyp(hei[cx]|mif1)", re.DOTALL), "heic", "image/heic"),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n"), "jp2", "image/jp2"),
)


def image_type(data: bytes) -> tuple[str, str] | None:
    """Extension and media type of an encoded image by its first bytes, whatever its name says; None if unknown."""
    return next(((extension, media) for magic, extension, media in _MAGIC if magic.match(data)), None)


def data_uri(data: bytes) -> str:
    """``data:image/jpeg;base64,...``, as readers take it in place of bytes."""
    _, media = image_type(data) or ("", "application/octet-stream")
    return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"


def plain(value: Any) -> Any:
    """A value, however nested, with bytes as data URIs and null for what JSON has no number for."""
    match value:
        case bytes():
            return data_uri(value)
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


def dump(value: Any) -> str:
    """One line of JSON in its own characters; only a lone surrogate, which UTF-8 cannot hold, is escaped."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def parsed(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object in a text; None when it holds no JSON or something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def visible(table: pa.Table) -> pa.Table:
    """The rows without hidden columns."""
    return table.drop_columns([LINE]) if LINE in table.column_names else table


def is_score(field: pa.Field) -> bool:
    """Whether a column holds scores, not something of the source."""
    return bool(field.metadata == SCORE)


def image_bytes(batch: Batch, image: int) -> bytes | None:
    """The stored bytes of an image, even such as cannot be an image; None where there are none."""
    data = batch.parts.images[image].inline
    return batch.bytes[image] if data is None else data


def json_column(column: pa.ChunkedArray) -> list[Any]:
    """The cells of a column as JSON values."""
    # A single float turns double by way of its text, so that 0.1 stays 0.1.
    spelled = _retyped(column.type, lambda leaf: pa.string() if _is_spelled(leaf) or leaf == pa.float32() else leaf)
    held = _retyped(column.type, lambda leaf: pa.string() if _is_spelled(leaf) else _double(leaf))
    for kind in (spelled, held):
        if kind != column.type:  # Arrow stumbles over slices with nothing but nulls in them, even where all stays
            column = column.cast(kind)
    return [plain(value) for value in column.to_pylist()]


def json_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Each row as a JSON object."""
    columns = [json_column(column) for column in table.columns]
    for row in range(table.num_rows):
        yield {name: cells[row] for name, cells in zip(table.column_names, columns, strict=True)}


def _is_spelled(leaf: pa.DataType) -> bool:
    """Whether Arrow spells the cell: Python has no nanoseconds, and JSON no times and decimals at all."""
    kinds = (pa.types.is_timestamp, pa.types.is_date, pa.types.is_time, pa.types.is_duration, pa.types.is_decimal)
    return any(is_kind(leaf) for is_kind in kinds)


def _double(leaf: pa.DataType) -> pa.DataType:
    return pa.float64() if leaf == pa.float32() else leaf


def _retyped(kind: pa.DataType, leaves: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The type with its leaves replaced, inside lists and structs too."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_retyped(field.type, leaves)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_retyped(kind.value_type, leaves))
    if pa.types.is_large_list(kind):
        return pa.large_list(_retyped(kind.value_type, leaves))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_retyped(kind.value_type, leaves), kind.list_size)
    return leaves(kind)
