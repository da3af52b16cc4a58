"""The rows of an index: from the ledger, the texts and the bytes of some images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.core.decode import decode
from clipsieve.core.fetch import ImageSource
from clipsieve.core.ledger import BASE_SCHEMA
from clipsieve.core.thumbnail import thumbnail_jpeg
from clipsieve.errors import ImageError

CAPTION = 1000
"""Characters of a caption that are stored; a document's paragraph can be a page."""


def rows_of(ledger: pa.Table, captions: Sequence[str | None]) -> list[dict[str, Any]]:
    """The rows of an index for some images, without what is made from their bytes."""
    dropped = [name for name in BASE_SCHEMA.names if name not in ("image", "sample_id", "reference")]
    rows: list[dict[str, Any]] = ledger.drop_columns(dropped).to_pylist()
    for row, caption in zip(rows, captions, strict=True):
        # A search cannot tell "not computed" from "cannot be scored": both pass no rule.
        row |= {name: _without_nan(value) for name, value in row.items()}
        row["caption"] = None if caption is None else caption[:CAPTION]
    return rows


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def captions_of(batch: Batch) -> list[str | None]:
    """For each image the first text of its sample; in documents the text that stands next before it, or else after."""
    parts = batch.parts
    if batch.layout.kind != "interleaved":
        return _texts_at(batch, np.searchsorted(parts.text_samples, parts.image_samples))
    before = np.searchsorted(parts.text_rows, parts.image_rows) - 1
    own = before >= 0
    own[own] = parts.text_samples[before[own]] == parts.image_samples[own]
    return _texts_at(batch, np.where(own, before, before + 1))


def _texts_at(batch: Batch, places: npt.NDArray[np.int64]) -> list[str | None]:
    """The texts at ``places``, None where the text there is of another sample."""
    parts = batch.parts
    pairs = zip(places.tolist(), parts.image_samples.tolist(), strict=True)
    return [parts.texts[i] if i < len(parts.texts) and parts.text_samples[i] == sample else None for i, sample in pairs]


def bytes_of(image: ImageSource) -> bytes | None:
    """The encoded bytes, None when they cannot be read any more."""
    try:
        return image.read()
    except ImageError:
        return None


def thumbnail_of(image: ImageSource, data: bytes | None) -> bytes | None:
    """The thumbnail as JPEG, None for an image that cannot be read or decoded any more."""
    try:
        return None if data is None else thumbnail_jpeg(decode(data, frame=image.frame))
    except ImageError:
        return None


def placeholder_id(row: Mapping[str, Any]) -> str:
    """The id of an image that cannot be read: of its reference, in place of its bytes."""
    return content_id((row["reference"] or "").encode(), row["caption"])


def content_id(content: bytes, caption: str | None, frame: int = 0) -> str:
    """Of equal images with equal captions the same, in any run: 128 bits of SHA-256, in hexadecimal."""
    whole = hashlib.sha256(hashlib.sha256(content).digest())
    whole.update(f"{frame} {caption or ''}".encode())
    return whole.hexdigest()[:32]


def digest_of(row: Mapping[str, Any], vector: npt.NDArray[np.float32]) -> str:
    """Differs between any two states of a row, its sources apart."""
    known = sorted((name, value) for name, value in row.items() if name != "id" and value is not None)
    return hashlib.sha256(repr(known).encode() + vector.tobytes()).hexdigest()[:32]


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows as a table; columns that they do not have are null, or empty lists, since not every store has both."""

    def column(field: pa.Field) -> pa.Array:
        if field.name == "vector":
            vectors = np.stack([row["vector"] for row in rows])
            return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        nothing: Any = [] if pa.types.is_list(field.type) else None
        values = (row.get(field.name) for row in rows)
        return pa.array([nothing if value is None else value for value in values], field.type)

    return pa.table([column(field) for field in schema], names=schema.names)
