"""Reads a table that is in memory already: Arrow, or columns of Python values with images of any kind among them.

Images that are not encoded (Pillow's, arrays) are laid out as uncompressed PPM, which the decoder reads like any
file, a shard at a time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from clipsieve.core.contracts import Piece, Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.decode import to_rgb
from clipsieve.core.layout import InvalidRows, LayoutKind, sample_runs
from clipsieve.errors import ImageError, UsageError
from clipsieve.readers.infer import IMAGE_NAMES, Columns, in_words
from clipsieve.readers.shards import Limits, grouped
from clipsieve.readers.source import Source
from clipsieve.readers.tables import conformed, interleaved_schema, sorted_by_position

NAME = "the rows in memory"
"""How messages call the source."""

_IMAGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])


class Memory:
    """The rows of ``source``, whose relative image paths are relative to ``root`` or the working directory.

    Raises ``ColumnError`` for columns that are not there, ``UsageError`` for columns that are no table.
    """

    def __init__(
        self,
        source: pa.Table | Mapping[str, Sequence[Any]],
        *,
        columns: Columns,
        layout: LayoutKind | None,
        root: str | None,
        invalid_rows: InvalidRows,
    ) -> None:
        self._pictures: dict[str, Sequence[Any]] = {}
        self._table = source if isinstance(source, pa.Table) else self._arrow(source, columns.image)
        request = Source(
            name=NAME, files=(), columns=columns, layout=layout, root=root or "", invalid_rows=invalid_rows
        )
        self.layout = request.infer(self._table.schema)
        if self.layout.kind == "interleaved":
            schema = interleaved_schema(self._table.schema)
            self._table = sorted_by_position(conformed(self._table, schema, NAME))
            _check_adjacent(self._table)

    def _arrow(self, columns: Mapping[str, Sequence[Any]], image: str | None) -> pa.Table:
        """The columns as Arrow; one of images that Arrow cannot hold as they are is null and kept aside."""
        arrays: dict[str, pa.Array] = {}
        for name, values in columns.items():
            may_hold_images = name == image or (image is None and name in IMAGE_NAMES)
            if may_hold_images and (kind := _kind_of_pictures(values)) is not None:
                self._pictures[name] = values
                arrays[name] = pa.nulls(len(values), kind)
                continue
            try:
                array = pa.array(values, from_pandas=True)
            except (pa.ArrowException, ValueError, TypeError, OverflowError) as failure:
                reason = " ".join(str(failure).split())
                raise UsageError(f"{NAME}: column {name!r} cannot be read: {reason}") from None
            arrays[name] = array.cast(pa.string()) if pa.types.is_null(array.type) else array
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise UsageError(f"{NAME}: columns of different lengths ({told})")
        return pa.table(arrays)

    def describe(self) -> str:
        """One line: rows, layout and columns."""
        return f"{NAME}: {self._table.num_rows:,} rows, {in_words(self.layout)}"

    def files(self) -> Sequence[SourceFile]:
        """None: nothing of this is in a file."""
        return []

    def shards(self) -> Sequence[Shard]:
        """Ranges of rows, of which there is always one; those of interleaved documents end where documents do."""
        rows = self._table.num_rows
        stops = np.arange(1, rows + 1)
        if self.layout.kind == "interleaved":
            runs = sample_runs(self._table.column("sample_id").combine_chunks())
            stops = np.append(np.flatnonzero(np.diff(runs)) + 1, [rows] if rows else []).astype(np.int64)
        samples = np.stack([stops, np.diff(stops, prepend=0), np.zeros_like(stops)], axis=1)
        ends = [0, *(grouped([samples], Limits())[:, 0].tolist() or [0])]
        return [
            Shard(number=number, pieces=(Piece(path=NAME, start=start, stop=stop),))
            for number, (start, stop) in enumerate(pairwise(ends))
        ]

    def read(self, shard: Shard) -> Rows:
        """The rows of a shard."""
        (piece,) = shard.pieces
        table = self._table.slice(piece.start, piece.stop - piece.start)
        errors: dict[int, str] = {}
        for name, values in self._pictures.items():
            cells = [_cell(value) for value in values[piece.start : piece.stop]]
            if name == self.layout.image:
                errors = {row: str(cell) for row, cell in enumerate(cells) if isinstance(cell, ImageError)}
            place = table.schema.get_field_index(name)
            column = [None if isinstance(cell, ImageError) else cell for cell in cells]
            table = table.set_column(place, name, pa.array(column, table.schema.field(place).type))
        return Rows(table=table, errors=errors)

    def count(self) -> SourceCounts:
        """Counts from the columns alone."""
        rows = self._table.num_rows
        if self.layout.kind == "captions":
            return SourceCounts(samples=rows, images=rows)
        if self.layout.kind == "interleaved":
            ids = self._table.column("sample_id").combine_chunks()
            images = pc.sum(pc.equal(self._table.column("modality"), "image")).as_py() or 0
            return SourceCounts(samples=len(np.unique(sample_runs(ids))), images=images)
        values = self._pictures.get(self.layout.image)
        if values is None:
            images = pc.sum(pc.list_value_length(self._table.column(self.layout.image))).as_py() or 0
        else:
            images = sum(len(value) for value in values if value is not None)
        return SourceCounts(samples=rows, images=images)


def _check_adjacent(table: pa.Table) -> None:
    """Raises ``UsageError`` when the rows of a document are apart: they would be taken for two documents."""
    ids = pc.fill_null(table.column("sample_id"), "").combine_chunks()
    starts = ids.take(pa.array(np.flatnonzero(np.diff(sample_runs(ids), prepend=-1))))
    counts = pc.value_counts(starts).to_pylist()
    twice = next((item["values"] for item in counts if item["counts"] > 1), None)
    if twice is not None:
        raise UsageError(f"{NAME}: the rows of document {twice!r} are not adjacent; sort them by sample_id")


def _kind_of_pictures(values: Sequence[Any]) -> pa.DataType | None:
    """The type of a column of images that Arrow cannot hold as they are; None for paths alone, or bytes alone."""
    listed = any(isinstance(value, (list, tuple)) for value in values)
    images = (image for value in values for image in (value if isinstance(value, (list, tuple)) else [value]))
    kinds = {type(image) for image in images if not _is_missing(image)}
    if kinds <= {bytes} or (kinds == {str} and all(map(_is_utf8, values))):
        return None
    return pa.list_(_IMAGE) if listed else _IMAGE


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_utf8(value: Any) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _cell(value: Any) -> Any:
    """An image as a ``{bytes, path}`` struct, or why it cannot be one; lists item by item."""
    if isinstance(value, (list, tuple)):
        items = [_cell(item) for item in value]
        return [None if isinstance(item, ImageError) else item for item in items]
    if _is_missing(value):
        return None
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        return {"path": path} if _is_utf8(path) else ImageError("no image: a path that is not text in UTF-8")
    if isinstance(value, bytes):
        return {"bytes": value}
    if isinstance(value, Mapping):
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    try:
        return {"bytes": _ppm(value)}
    except ImageError as failure:
        return failure


def _ppm(image: Any) -> bytes:
    """A decoded image as a file that holds its pixels as they are. Raises ``ImageError``."""
    if isinstance(image, Image.Image):
        image = to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(f"no image: the cell holds {type(image).__name__}, neither a path nor bytes")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(f"undecodable: an array of {image.dtype} and shape {image.shape}, not (h, w, 3) uint8")
    return b"P6 %d %d 255\n" % (image.shape[1], image.shape[0]) + image.tobytes()
