"""Reads Parquet: caption and list rows as they are typed, or interleaved documents; a shard is a range of rows.

Ranges cut through row groups, and a row group is read in small batches, so that memory does not grow with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipsieve.core.contracts import Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.layout import INTERLEAVED_SCHEMA, sample_runs
from clipsieve.errors import SourceError
from clipsieve.readers.files import reading
from clipsieve.readers.interleaved import conformed, interleaved_schema, sorted_by_position
from clipsieve.readers.shards import NO_ITEMS, Cut, Items, Limits, grouped, shards
from clipsieve.readers.source import Source

_READ_BUFFER = 2**20
_COLUMN_ROWS = 2**16
"""Rows at a time where only narrow columns are streamed."""


@dataclass(frozen=True, kw_only=True)
class _Footer:
    """Of one file: its schema and the rows and uncompressed bytes of each row group, ``(groups,)``."""

    schema: pa.Schema
    rows: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


class Parquet:
    """Parquet files of one schema; columns that some files lack or hold in a narrower type are filled and widened.

    The rows of an interleaved document must be adjacent and in one file; they come sorted by position.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        with ThreadPoolExecutor(16) as threads:
            footers = list(threads.map(_footer, (file.path for file in source.files)))
        self._footers = {file.path: footer for file, footer in zip(source.files, footers, strict=True)}
        self._schema = _common_schema(self._footers)
        self.layout = source.infer(self._schema)
        self._interleaved = self.layout.kind == "interleaved"
        if self._interleaved:
            self._schema = interleaved_schema(self._schema)
        self._cursor: _Cursor | None = None

    def describe(self) -> str:
        """One line: files, rows, layout and columns."""
        rows = sum(int(footer.rows.sum()) for footer in self._footers.values())
        return self._source.describe(f"Parquet of {rows:,} rows", self.layout)

    def files(self) -> Sequence[SourceFile]:
        """The files in reading order."""
        return self._source.files

    def shards(self) -> Sequence[Shard]:
        """Ranges of rows; those of interleaved documents end where documents do.

        Raises ``SourceError`` when the rows of a document are not adjacent. Documents of equal id in two files
        are two documents, and never meet in one shard.
        """
        cuts = self._document_cuts() if self._interleaved else self._row_cuts()
        return shards(cuts, self._source.limits)

    def _row_cuts(self) -> Iterator[Cut]:
        for path, footer in self._footers.items():
            yield Cut(path=path, groups=grouped(_row_items(footer), self._source.limits))

    def _document_cuts(self) -> Iterator[Cut]:
        last: str | None = None
        for path, footer in self._footers.items():
            documents = _Documents(path)
            groups = grouped(documents.items(footer), self._source.limits)
            documents.check_adjacent()
            yield Cut(path=path, groups=groups, apart=documents.first is not None and documents.first == last)
            last = documents.last if documents.first is not None else last

    def read(self, shard: Shard) -> Rows:
        """The rows of a shard, in the types of the source (interleaved: in those of ``INTERLEAVED_SCHEMA``)."""
        tables: list[pa.Table] = []
        origins: list[tuple[int, str]] = []
        row = 0
        for piece in shard.pieces:
            table = conformed(self._rows(piece.path, piece.start, piece.stop), self._schema, piece.path)
            tables.append(sorted_by_position(table) if self._interleaved else table)
            origins.append((row, piece.path))
            row += table.num_rows
        return Rows(table=pa.concat_tables(tables), origins=tuple(origins))

    def _rows(self, path: str, start: int, stop: int) -> pa.Table:
        if self._cursor is None or self._cursor.path != path or self._cursor.row > start:
            self._cursor = _Cursor(path, self._footers[path], start, self._source.limits)
        return self._cursor.read(start, stop)

    def count(self) -> SourceCounts:
        """Counts by streaming, file by file, only the columns that tell samples and images."""
        samples = images = 0
        for path in self._footers:
            found = self._count_documents(path) if self._interleaved else self._count_rows(path)
            samples += found[0]
            images += found[1]
        return SourceCounts(samples=samples, images=images)

    def _count_documents(self, path: str) -> tuple[int, int]:
        samples = images = 0
        last: str | None = None
        for batch in _stream(path, ["sample_id", "modality"]):
            ids = pc.fill_null(batch["sample_id"].cast(pa.string()), "")
            changed = pc.not_equal(ids[1:], ids[:-1])
            samples += (pc.sum(changed).as_py() or 0) + (last is None or ids[0].as_py() != last)
            last = ids[-1].as_py()
            images += pc.sum(pc.equal(batch["modality"].cast(pa.string()), "image")).as_py() or 0
        return samples, images

    def _count_rows(self, path: str) -> tuple[int, int]:
        with reading(path), fsspec.open(path, "rb") as file:
            rows = int(pq.read_metadata(file).num_rows)
        if self.layout.kind == "captions":
            return rows, rows
        images = 0
        for batch in _stream(path, [self.layout.image]):
            cells = conformed(
                pa.Table.from_batches([batch]), pa.schema([self._schema.field(self.layout.image)]), path
            )[self.layout.image]  # fmt: skip
            images += pc.sum(pc.list_value_length(cells)).as_py() or 0 if _is_list(cells.type) else rows_with(cells)
        return rows, images
