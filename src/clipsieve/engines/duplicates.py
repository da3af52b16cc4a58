"""Near duplicates among the survivors of a run: what is compared, in which order, and what the ledger says of it.

The comparison itself is ``clipsieve.dedup``. Its outcome is put beside the staged survivors before anything is
written, so that a second pass that is interrupted goes on with the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve import dedup
from clipsieve.core import storage
from clipsieve.core.contracts import Vectors
from clipsieve.core.decide import Verdicts
from clipsieve.core.spread import Spread
from clipsieve.engines.compared import Compared, CountCompared, Names, Numbers, ReadCompared, compact
from clipsieve.engines.ledger_columns import ABOUT, Earlier, LedgerColumns, score_of
from clipsieve.engines.partition_files import PartitionFiles, vectors_of
from clipsieve.engines.survivors import Selected, Survivors, reading
from clipsieve.runfolder import RunFolder, atomic, undamaged

if TYPE_CHECKING:
    from clipsieve.plan import BoundDedup

COLUMNS = ("image", "sample", "verdict", "error", "sample_verdict", "sample_id", "reference")
"""Those of the ledger that the search reads, beside what is compared and what gives the order."""


FORMAT = b"clipsieve.found"
"""Key of the found file's metadata under which its ``stamp`` stands; a file with another one is not gone on with."""

VERSION = b"2"

ROWS, SHARDS = 2**18, 2**10
"""A row group of the found file ends when it has so many rows, or is of so many shards: the footer of one for each of a
million shards would be gigabytes, which every reader has to hold."""

_SEARCH_AGAIN = "remove it and run the same command again to search again"


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What was found for the images of a shard that were compared.

    ``table`` has a row for each of those that the selections before left: ``removed``, ``reason`` and the columns of
    the ledger.
    """

    by: BoundDedup
    table: pa.Table

    def apply(self, verdicts: Verdicts, of: Survivors) -> None:
        """Drops the images that go, or their samples."""
        images = np.flatnonzero(verdicts.images & ~verdicts.exempt)
        removed = self.table["removed"].to_numpy()
        reasons = self.table["reason"].filter(self.table["removed"]).to_pylist()
        verdicts.drop_images(images[removed], self.by.by.text, reasons, whole_sample=self.by.unit == "sample")

    def with_columns(self, scores: pa.Table, rows: Numbers) -> pa.Table:
        """The part with the columns of near duplicates at ``rows``, null for what was not compared, and how it was
        done."""
        places = np.full(scores.num_rows, -1)
        places[rows] = np.arange(len(rows))
        taken = pa.array(places, mask=places < 0)
        for name in self.table.column_names:
            if name not in ("removed", "reason"):
                column = self.table.schema.field(name)
                scores = scores.append_column(column, self.table[name].take(taken))
        about = {ABOUT: self.table.schema.metadata[ABOUT]}
        return scores.replace_schema_metadata({**(scores.schema.metadata or {}), **about})


class FoundFile:
    """What was found for the compared ``images`` of all shards, so many each, in the open ``file`` at ``path``.

    The row group of the last shard that was asked for stays in memory. Raises ``RunFolderError`` when it is damaged.
    """

    def __init__(self, path: Path, file: BinaryIO, by: BoundDedup, images: Sequence[int]) -> None:
        self._path, self._by, self._images = path, by, images
        self._shards = np.cumsum([0, *images])
        with undamaged(path, _SEARCH_AGAIN):
            self._file = pq.ParquetFile(file)
            about = self._file.metadata
            self._groups = np.cumsum([0, *(about.row_group(group).num_rows for group in range(about.num_row_groups))])
        self._last: tuple[int, pa.Table] | None = None

    def fits(self) -> bool:
        """Whether it is of this version, of these numbers of images, and of the same method."""
        schema = self._file.schema_arrow
        stamped = (schema.metadata or {}).get(FORMAT) == stamp(self._images)
        return stamped and (score_of(self._by.by.method) or "removed") in schema.names

    def shard(self, place: int) -> Found:
        """What was found for the shard at ``place`` among all."""
        start, stop = self._shards[place : place + 2].tolist()
        with undamaged(self._path, _SEARCH_AGAIN):
            if start == stop:
                return Found(by=self._by, table=self._file.schema_arrow.empty_table())
            group = int(np.searchsorted(self._groups, start, side="right")) - 1
            if self._last is None or self._last[0] != group:
                self._last = group, self._file.read_row_group(group, use_threads=False)
            # Copied: a worker that is sent a slice is sent all that it is a slice of.
            rows = pa.array(np.arange(start, stop) - self._groups[group])
            return Found(by=self._by, table=self._last[1].take(rows))


def stamp(images: Sequence[int]) -> bytes:
    """The version of the found file's format, and a digest of how many ``images`` of each shard it is of."""
    digest = hashlib.blake2b(np.asarray(images, dtype="<i8").tobytes(), digest_size=16)
    return b" ".join((VERSION, digest.hexdigest().encode()))


def write_found(path: Path, schema: pa.Schema, shards: Iterable[pa.Table], images: Sequence[int]) -> None:
    """Writes what ``FoundFile`` reads; the rows of a shard, however many, are in one row group."""
    schema = schema.with_metadata({**schema.metadata, FORMAT: stamp(images)})
    options = {"compression": "zstd", "write_statistics": False}  # nobody looks for a value
    with atomic(path) as file, pq.ParquetWriter(file, schema, **options) as writer:
        for table in _grouped(shards):
            writer.write_table(table, row_group_size=len(table))


def _grouped(shards: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Shards that follow each other as one table, which has some rows."""
    some: list[pa.Table] = []
    rows = 0
    for table in shards:
        rows += len(table)
        if len(table):
            some.append(table)
        if rows >= ROWS or len(some) == SHARDS:
            yield pa.concat_tables(some)
            some, rows = [], 0
    if some:
        yield pa.concat_tables(some)


def find(
    by: BoundDedup,
    folder: RunFolder,
    shards: Sequence[tuple[int, Sequence[Selected]]],
    ranked: Sequence[str],
    earlier: Earlier | None,
    workers: Spread | None,
    progress: Callable[[int, int], None],
) -> tuple[Path, Sequence[int]]:
    """The file of what is found for ``shards``, each with the selections before, by the columns ``ranked``; and of how
    many images of each.

    An interrupted second pass goes on with what it had found, unless that is not of these shards and this version.
    """
    path, read = folder.path / "staged" / "duplicates.parquet", reading(folder, workers)
    if storage.exists(path):
        images = list(read(CountCompared(folder=folder, columns=(*dict.fromkeys([*COLUMNS, *ranked]),)), shards))
        with storage.opened(path) as file:
            if FoundFile(path, file, by, images).fits():
                return path, images
    names = Names(folder.scratch)
    columns = dict.fromkeys([*COLUMNS, *ranked, *filter(None, [by.column]), *by.preference])
    work = ReadCompared(by=by, folder=folder, columns=tuple(columns), digests=by.column is None and workers is not None)
    compared = Compared.gather(by, [number for number, _ in shards], read(work, shards), names)
    if earlier is not None:
        names.add(earlier.names)
    outcome = _search(compared, folder, earlier, workers, progress)
    written = LedgerColumns(compared=compared, found=outcome, earlier=earlier)
    images = [len(rows) for rows in compared.rows]
    write_found(path, written.schema, written.shards(), images)
    return path, images


def _search(
    compared: Compared,
    folder: RunFolder,
    earlier: Earlier | None,
    workers: Spread | None,
    progress: Callable[[int, int], None],
) -> dedup.Duplicates:
    """Compares by the method of the recipe: hashes here, vectors by ``workers``, or without any here in one file."""
    by = compared.by.by
    shared: dict[str, Any] = {"order": compared.order(), "units": compared.units, "links": by.links}
    if compared.by.column is not None:
        shared["against"] = None if earlier is None else compact(earlier.compared, by.method)
        if by.method == "exact":
            return dedup.exact(compared.content, **shared)
        return dedup.perceptual(compared.content, int(by.at), **shared)
    shared |= {"method": "exact" if by.method == "semantic" else by.method, "progress": progress}
    shared["against"] = None if earlier is None else earlier.compared
    if workers is None:
        return dedup.semantic(_gathered(compared, folder), by.at, **shared)
    store = PartitionFiles(folder=folder)
    vectors = compared.vectors(folder)
    assert isinstance(compared.content, np.ndarray)
    found = dedup.distributed(
        vectors, compared.content, by.at, spread=workers, store=store, scratch=folder.scratch, **shared
    )
    store.remove()
    return found


def _gathered(compared: Compared, folder: RunFolder) -> Vectors:
    """The vectors of the images, gathered into one file and memory-mapped."""
    vectors = reading(folder, None)(partial(vectors_of, folder), compared.shards)
    return gathered(folder.scratch / "vectors.npy", zip(vectors, compared.rows, strict=True), len(compared))


def gathered(path: Path, parts: Iterable[tuple[Vectors, npt.NDArray[np.integer]]], count: int) -> Vectors:
    """The chosen rows of several vectors in one new file at ``path``, memory-mapped; ``count`` rows in all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every: Vectors | None = None
    start = 0
    for vectors, rows in parts:
        if every is None:
            every = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, vectors.shape[1]))
        every[start : start + len(rows)] = vectors[rows]
        start += len(rows)
    return np.zeros((0, 0), dtype=np.float32) if every is None else every
