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
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from clipsieve.core.contracts import Piece, Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.decode import check_rgb, to_rgb
from clipsieve.core.layout import InvalidRows, LayoutKind, sample_runs
from clipsieve.core.spread import Spread, in_threads
from clipsieve.core.urls import FetchPolicy
from clipsieve.errors import ColumnError, ImageError, UsageError
from clipsieve.readers.infer import IMAGE_NAMES, Columns, in_words, is_list
from clipsieve.readers.shards import Limits, grouped
from clipsieve.readers.source import Source
from clipsieve.readers.tables import conformed, interleaved_schema, sorted_by_position

NAME = "the rows in memory"
"""How messages call the source."""

_ORDER = "__order__"

_IMAGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string()), ("error", pa.string())])


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
        fetch: FetchPolicy | None = None,
    ) -> None:
        self._pictures: dict[str, Sequence[Any]] = {}
        _check_table(source)
        self._table = source if isinstance(source, pa.Table) else self._arrow(source, columns.image, layout)
        request = Source(
            name=NAME, files=(), columns=columns, layout=layout, root=root or "", invalid_rows=invalid_rows, fetch=fetch
        )
        self.layout = request.infer(self._table.schema)
        self.order: npt.NDArray[np.int64] = np.arange(self._table.num_rows, dtype=np.int64)
        """For each row as it is read, its number in the source: rows of documents are read by position."""
        if self.layout.kind == "interleaved":
            schema = interleaved_schema(self._table.schema)
            numbered = conformed(self._table, schema, NAME).append_column(_ORDER, pa.array(self.order))
            numbered = sorted_by_position(numbered)
            self.order = numbered.column(_ORDER).to_numpy()
            self._table = numbered.drop_columns([_ORDER])
            _check_adjacent(self._table)

    def _arrow(self, columns: Mapping[str, Sequence[Any]], image: str | None, layout: LayoutKind | None) -> pa.Table:
        """The columns as Arrow; one of images that Arrow cannot hold as they are is null and kept aside."""
        arrays: dict[str, pa.Array] = {}
        for name, values in columns.items():
            may_hold_images = name == image or (image is None and name in IMAGE_NAMES)
            if may_hold_images and (kind := _kind_of_pictures(values, layout)) is not None:
                self._pictures[name] = values
                arrays[name] = pa.nulls(len(values), kind)
                continue
            try:
                array = pa.array(values, from_pandas=True)
            except (pa.ArrowException, ValueError, TypeError, OverflowError) as failure:
                reason = " ".join(str(failure).split())
                raise UsageError(f"{NAME}: column {name!r} cannot be read: {reason}") from None
            says_nothing = pa.types.is_null(array.type) or not len(array)
            arrays[name] = pa.nulls(len(array), pa.string()) if says_nothing else array
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

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
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
        for name, values in self._pictures.items():
            place = table.schema.get_field_index(name)
            kind = table.schema.field(place).type
            cell = _cells if pa.types.is_list(kind) else _cell
            table = table.set_column(place, name, pa.array(map(cell, values[piece.start : piece.stop]), kind))
        return Rows(table=table)

    def count(self, spread: Spread = in_threads) -> SourceCounts:
        """Counts from the columns alone."""
        rows = self._table.num_rows
        if self.layout.kind == "captions":
            return SourceCounts(samples=rows, images=rows)
        if self.layout.kind == "interleaved":
            ids = self._table.column("sample_id").combine_chunks()
            images = pc.sum(pc.equal(self._table.column("modality"), "image")).as_py() or 0
            return SourceCounts(samples=len(np.unique(sample_runs(ids))), images=images)
        values = self._pictures.get(self.layout.image)
        column = self._table.column(self.layout.image)
        if values is not None:
            images = sum(len(value) if _is_listed(value) else not _is_missing(value) for value in values)
        elif is_list(column.type):
            images = pc.sum(pc.list_value_length(column)).as_py() or 0
        else:  # an image a row, without a list
            images = rows - column.null_count
        return SourceCounts(samples=rows, images=images)


def _check_table(source: Any) -> None:
    """Raises ``UsageError`` for what is neither an Arrow table nor columns of values."""
    if isinstance(source, pa.Table):
        twice = next((name for name in source.column_names if source.column_names.count(name) > 1), None)
        if twice is not None:
            raise ColumnError(f"{NAME}: two columns are called {twice!r}; rename one")
        return
    if not hasattr(source, "items"):
        raise UsageError(
            f"{NAME}: give an Arrow table, a DataFrame or a mapping of column names to values, not "
            f"{type(source).__name__} (pa.Table.from_pylist makes a table of a list of rows)"
        )
    names = list(source.keys())
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"{NAME}: a column is called {name!r}; name columns by text")
        if names.count(name) > 1:
            raise ColumnError(f"{NAME}: two columns are called {name!r}; rename one")
    for name, values in source.items():
        if isinstance(values, (str, bytes)) or not (hasattr(values, "__len__") and hasattr(values, "__getitem__")):
            raise UsageError(f"{NAME}: column {name!r} is {type(values).__name__}, not a list of values")


def _check_adjacent(table: pa.Table) -> None:
    """Raises ``UsageError`` when the rows of a document are apart: they would be taken for two documents."""
    ids = pc.fill_null(table.column("sample_id"), "").combine_chunks()
    starts = ids.take(pa.array(np.flatnonzero(np.diff(sample_runs(ids), prepend=-1))))
    counts = pc.value_counts(starts).to_pylist()
    twice = next((item["values"] for item in counts if item["counts"] > 1), None)
    if twice is not None:
        raise UsageError(f"{NAME}: the rows of document {twice!r} are not adjacent; sort them by sample_id")


def _kind_of_pictures(values: Sequence[Any], layout: LayoutKind | None) -> pa.DataType | None:
    """The type of a column of images that Arrow cannot hold as they are; None for paths alone, or bytes alone."""
    listed = layout == "lists" or (layout is None and any(map(_is_listed, values)))
    cells = [value for value in values if not _is_missing(value)]
    whole = not listed or all(map(_is_listed, cells)) or not any(map(_is_listed, cells))
    images = [image for value in cells for image in (value if _is_listed(value) and listed else [value])]
    kinds = {type(image) for image in images if not _is_missing(image)}
    if whole and (kinds <= {bytes} or (kinds == {str} and all(map(_is_utf8, images)))):
        return None
    return pa.list_(_IMAGE) if listed else _IMAGE


def _is_listed(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1)


def _is_missing(value: Any) -> bool:
    # Those of pandas are neither equal nor unequal to themselves.
    of_pandas = type(value).__name__ in ("NAType", "NaTType")
    return value is None or of_pandas or (isinstance(value, float) and math.isnan(value))


def _is_utf8(value: Any) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _cells(value: Any) -> Any:
    """A list of images, item by item; one that is not in a list is a list of one."""
    if _is_missing(value):
        return None
    return [_cell(item) for item in (value if _is_listed(value) else [value])]


def _cell(value: Any) -> Any:
    """An image as a struct of its bytes or its path, or of the error why it cannot be one."""
    if _is_missing(value):
        return None
    try:
        if isinstance(value, Mapping):
            return {name: _part(value.get(name), name) for name in ("bytes", "path")}
        if isinstance(value, (bytes, bytearray, memoryview)):
            return {"bytes": bytes(value)}
        if isinstance(value, (str, os.PathLike)):
            return {"path": _path(value)}
        return {"bytes": _ppm(value)}
    except ImageError as failure:
        return {"error": str(failure)}


def _path(value: str | os.PathLike[str]) -> str:
    path = os.fspath(value)
    if not isinstance(path, str) or not _is_utf8(path):
        raise ImageError("no image: a path that is not text in UTF-8")
    return path


def _part(value: Any, name: str) -> Any:
    """The bytes or the path of a ``{bytes, path}`` mapping. Raises ``ImageError``."""
    if _is_missing(value):
        return None
    if name == "path" and isinstance(value, (str, os.PathLike)):
        return _path(value)
    if name == "bytes" and isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise ImageError(f"no image: the cell's {name} {'is' if name == 'path' else 'are'} {type(value).__name__}")


def _ppm(image: Any) -> bytes:
    """A decoded image as a file that holds its pixels as they are. Raises ``ImageError``."""
    if isinstance(image, Image.Image):
        image = to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(f"no image: the cell holds {type(image).__name__}, neither a path nor bytes")
    check_rgb(image)
    return b"P6 %d %d 255\n" % (image.shape[1], image.shape[0]) + image.tobytes()
