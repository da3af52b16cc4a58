"""Reads Parquet: caption and list rows as they are typed, or interleaved documents; a shard is a range of rows.

Ranges cut through row groups, and a row group is read in small batches, so that memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipsieve.core.contracts import Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.layout import sample_runs
from clipsieve.core.ranges import is_remote
from clipsieve.core.spread import Spread, in_threads
from clipsieve.errors import SourceError
from clipsieve.readers.files import open_columns, reading
from clipsieve.readers.infer import is_list
from clipsieve.readers.shards import NO_ITEMS, Cut, Items, Limits, Neighbours, grouped, shards, stable_hash
from clipsieve.readers.source import Source
from clipsieve.readers.tables import conformed, sorted_by_position

_READ_BUFFER = 2**20
_REMOTE_BUFFER = 4 * 2**20
"""Bytes of a column that are read at a time: more from a store, where every request takes its time."""

_BATCHES_OF_SHARD = 8
"""A shard is put together from batches of about this part of its bytes, so that little is decoded beyond it."""
_COLUMN_ROWS = 2**16
"""Rows at a time where only narrow columns are streamed."""

NO_HASHES = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class _Footer:
    """Of one file: its schema and the rows and uncompressed bytes of each row group, ``(groups,)``."""

    schema: pa.Schema
    rows: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def group(self, row: int) -> int:
        """The row group that holds a row."""
        return int(np.searchsorted(np.cumsum(self.rows), row, side="right"))

    def items(self, stops: npt.NDArray[np.int64], start: int) -> Items:
        """Stretches of rows that end at ``stops`` ``(n,)``, from ``start`` on; a row has its group's mean size."""
        edges = np.concatenate([[start], stops])
        ends = np.interp(edges, np.cumsum([0, *self.rows]), np.cumsum([0, *self.sizes])).astype(np.int64)
        return np.stack([stops, np.diff(edges), np.diff(ends)], axis=1)


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
            self._schema = source.documents(self._schema)
        if self.layout.kind == "lists":
            self._schema = _of_any_length(self._schema, self.layout.image)
        self._cursor: _Cursor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process opens files of its own."""
        return {**self.__dict__, "_cursor": None}

    def describe(self) -> str:
        """One line: files, rows, layout and columns."""
        rows = sum(int(footer.rows.sum()) for footer in self._footers.values())
        return self._source.describe(f"Parquet of {rows:,} rows", self.layout)

    def files(self) -> Sequence[SourceFile]:
        """The files in reading order."""
        return self._source.files

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
        """Ranges of rows; those of interleaved documents end where documents do.

        Raises ``SourceError`` when the rows of a document are not adjacent. Documents of equal id in two files
        are two documents, and never meet in one shard.
        """
        cuts = self._document_cuts(spread) if self._interleaved else self._row_cuts()
        return shards(cuts, self._source.limits)

    def _row_cuts(self) -> Iterator[Cut]:
        for path, footer in self._footers.items():
            yield Cut(path=path, groups=grouped(_row_items(footer), self._source.limits))

    def _document_cuts(self, spread: Spread) -> Iterator[Cut]:
        before = Neighbours(self._source.limits)
        for path, (groups, ids) in zip(self._footers, spread(self._groups, self._footers), strict=True):
            yield Cut(path=path, groups=groups, apart=before.meet(groups, ids))

    def _groups(self, path: str) -> tuple[Items, Set[int]]:
        """The groups of a file's documents and, of a small file, their hashed ids."""
        documents = _Documents(path)
        groups = grouped(documents.items(self._footers[path]), self._source.limits)
        documents.check_adjacent()
        return groups, documents.small_ids(groups)

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
        footer, cursor = self._footers[path], self._cursor
        if (
            cursor is None
            or cursor.path != path
            or not cursor.row <= start
            or footer.group(cursor.row) < footer.group(start)
        ):
            if cursor:
                cursor.close()
            self._cursor = cursor = _Cursor(path, footer, start, self._source.limits)
        return cursor.read(start, stop)

    def count(self, spread: Spread = in_threads) -> SourceCounts:
        """Counts by streaming, file by file, only the columns that tell samples and images."""
        count = self._count_documents if self._interleaved else self._count_rows
        return SourceCounts.total(spread(count, self._footers))

    def _count_documents(self, path: str) -> SourceCounts:
        samples = images = 0
        last: str | None = None
        for batch in _stream(path, ["sample_id", "modality"]):
            ids = pc.fill_null(batch["sample_id"].cast(pa.string()), "")
            changed = pc.not_equal(ids[1:], ids[:-1])
            samples += (pc.sum(changed).as_py() or 0) + (last is None or ids[0].as_py() != last)
            last = ids[-1].as_py()
            images += pc.sum(pc.equal(batch["modality"].cast(pa.string()), "image")).as_py() or 0
        return SourceCounts(samples=samples, images=images)

    def _count_rows(self, path: str) -> SourceCounts:
        with reading(path), open_columns(path) as file:
            rows = int(pq.read_metadata(file).num_rows)
        if self.layout.kind == "captions":
            return SourceCounts(samples=rows, images=rows)
        images = 0
        field = pa.schema([self._schema.field(self.layout.image)])
        for batch in _stream(
            path, [self.layout.image] if self.layout.image in self._footers[path].schema.names else []
        ):
            cells = conformed(pa.Table.from_batches([batch]), field, path).column(0)
            listed = is_list(cells.type)
            images += (pc.sum(pc.list_value_length(cells)).as_py() or 0) if listed else len(cells) - cells.null_count
        return SourceCounts(samples=rows, images=images)


class _Cursor:
    """The rows of one file from ``row`` on, forward; what lies between two ranges is passed over."""

    def __init__(self, path: str, footer: _Footer, start: int, limits: Limits) -> None:
        self.path = path
        group = footer.group(start)
        self.row = int(footer.rows[:group].sum())
        mean = max(1, int(footer.sizes.sum()) // max(1, int(footer.rows.sum())))
        with reading(path):
            self._file = open_columns(path)
            # Buffered and not read ahead: a column chunk comes in by the page, not as a whole.
            parquet = pq.ParquetFile(self._file, pre_buffer=False, buffer_size=_buffer(path))
            self._batches = parquet.iter_batches(
                batch_size=max(1, min(limits.rows, limits.bytes // _BATCHES_OF_SHARD // mean)),
                row_groups=range(group, len(footer.rows)),
            )
        self._rest: Any = None

    def read(self, start: int, stop: int) -> pa.Table:
        """Rows ``[start, stop)``. Raises ``SourceError`` when the file cannot give them."""
        found = []
        while self.row < stop:
            batch = self._rest if self._rest is not None else self._next()
            begin, end = max(start - self.row, 0), min(stop - self.row, batch.num_rows)
            if begin < end:
                found.append(batch.slice(begin, end - begin))
            self._rest = batch.slice(end) if end < batch.num_rows else None
            self.row += end
        return pa.Table.from_batches(found)

    def _next(self) -> Any:
        with reading(self.path):
            batch = next(self._batches, None)
        if batch is None:
            raise SourceError(f"{self.path}: ends before row {self.row:,}: changed since the run began")
        return batch

    def close(self) -> None:
        self._file.close()


class _Documents:
    """The documents of one file, found by streaming its ``sample_id`` column."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._hashes: list[npt.NDArray[np.int64]] = []

    def items(self, footer: _Footer) -> Iterator[Items]:
        """Every document, in chunks."""
        stop = 0
        for starts, ids in _runs(self._path):
            # Eight bytes a document, not its id, are kept to find those that begin twice.
            self._hashes.append(np.array([stable_hash(name) for name in ids], dtype=np.int64))
            stops = starts[starts > 0]
            yield footer.items(stops, stop)
            stop = int(stops[-1]) if len(stops) else stop
        rows = int(footer.rows.sum())
        yield footer.items(np.array([rows]), stop) if rows else NO_ITEMS

    def small_ids(self, groups: Items) -> Set[int]:
        """The hashed ids of a file that may share a shard with others; of a larger one none."""
        return set(np.concatenate([NO_HASHES, *self._hashes]).tolist()) if len(groups) == 1 else set()

    def check_adjacent(self) -> None:
        """Raises ``SourceError`` for the first document that begins twice."""
        hashes, counts = np.unique(np.concatenate([NO_HASHES, *self._hashes]), return_counts=True)
        suspects = set(hashes[counts > 1].tolist())
        if not suspects:
            return
        begun: dict[str, int] = {}
        for starts, ids in _runs(self._path):
            for row, name in zip(starts.tolist(), ids, strict=True):
                if stable_hash(name) in suspects and begun.setdefault(name, row) != row:
                    raise SourceError(
                        f"{self._path}: the rows of document {name!r} are not adjacent "
                        f"(it begins at rows {begun[name]:,} and {row:,}); sort the file by sample_id"
                    )


def _runs(path: str) -> Iterator[tuple[npt.NDArray[np.int64], list[str]]]:
    """Where documents begin, by row, and their ids; in chunks that hold at least one."""
    row, last = 0, None
    for batch in _stream(path, ["sample_id"]):
        ids = pc.fill_null(batch.column(0).cast(pa.string()), "")
        starts = np.flatnonzero(np.diff(sample_runs(ids), prepend=-1))
        names = ids.take(pa.array(starts)).to_pylist()
        if names[0] == last:
            starts, names = starts[1:], names[1:]
        if names:
            last = names[-1]
            yield starts + row, names
        row += batch.num_rows


def _buffer(path: str) -> int:
    return _REMOTE_BUFFER if is_remote(path) else _READ_BUFFER


def _stream(path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with reading(path), open_columns(path) as file:
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_buffer(path))
        batches = parquet.iter_batches(batch_size=_COLUMN_ROWS, columns=list(columns))
        yield from (batch for batch in batches if batch.num_rows)


def _footer(path: str) -> _Footer:
    with reading(path):
        try:
            with open_columns(path) as file:
                parquet = pq.ParquetFile(file)
                groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
                schema = parquet.schema_arrow
        except pa.ArrowInvalid as failure:
            reason = str(failure).split(". ")[0]
            raise SourceError(f"{path}: not a whole Parquet file ({reason}); fetch or write it again") from None
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise SourceError(f"{path}: has two columns {twice[0]!r}; rename one")
    return _Footer(
        schema=schema,
        rows=np.array([group.num_rows for group in groups], dtype=np.int64),
        sizes=np.array([group.total_byte_size for group in groups], dtype=np.int64),
    )


def _common_schema(footers: Mapping[str, _Footer]) -> pa.Schema:
    (first, footer), *others = footers.items()
    schema = footer.schema
    for path, other in others:
        try:
            schema = pa.unify_schemas([schema, other.schema], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as failure:
            reason = " ".join(str(failure).split())
            raise SourceError(f"{path}: does not go together with {first}: {reason}; read them separately") from None
    return schema


def _row_items(footer: _Footer) -> Iterator[Items]:
    rows = int(footer.rows.sum())
    for start in range(0, rows, _COLUMN_ROWS):
        yield footer.items(np.arange(start, min(start + _COLUMN_ROWS, rows)) + 1, start)


def _of_any_length(schema: pa.Schema, column: str) -> pa.Schema:
    """The schema with lists of any length where the images of a row are a list of fixed size: one may be dropped."""
    index = schema.get_field_index(column)
    field = schema.field(index)
    if not pa.types.is_fixed_size_list(field.type):
        return schema
    return schema.set(index, field.with_type(pa.list_(field.type.value_field)))
