"""The vectors of a run as workers read them: those of its shards, and partitions of them while they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve.core import storage
from clipsieve.core.contracts import Vectors
from clipsieve.core.ranges import RemoteFile
from clipsieve.core.spread import in_threads
from clipsieve.dedup import Ranges, VectorPartition
from clipsieve.runfolder import RunFolder, atomic, undamaged

Rows = npt.NDArray[np.int32]
"""Rows of a shard's ledger part, or of a partition."""

_NUMBERS = ("classes", "rank", "unit", "other")
_COLUMNS = (*_NUMBERS, "vectors")

_AT_ONCE = 1024
"""Rows of a partition that are put in order at once: 2 MB at 512 dimensions."""

_AGAIN = "run the same command again"


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardRows:
    """The vectors of some rows of some shards, in that order; see ``dedup.Located``."""

    folder: RunFolder
    rows: Sequence[tuple[int, Rows]]

    def read(self) -> Vectors:
        """``(rows, dim)`` float32. Raises ``RunFolderError`` where they are gone or damaged."""
        return np.concatenate([vectors_of(self.folder, shard)[rows] for shard, rows in self.rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageVectors:
    """Those of all images that are compared: of each of ``shards`` the ``rows``; see ``dedup.Vectors``."""

    folder: RunFolder
    shards: Sequence[int]
    rows: Sequence[Rows]

    def locate(self, images: npt.NDArray[np.int64]) -> ShardRows:
        """Where those of some ``images`` are, which ascend."""
        places = np.searchsorted(self._starts, images, side="right") - 1
        begins = np.flatnonzero(np.diff(places, prepend=-1))
        rows = [
            (self.shards[place], self.rows[place][some - self._starts[place]])
            for place, some in zip(places[begins].tolist(), np.split(images, begins[1:]), strict=False)
        ]
        return ShardRows(folder=self.folder, rows=rows)

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *map(len, self.rows)])


@dataclass(frozen=True, kw_only=True, eq=False)
class PartitionFiles:
    """Partitions in the run folder, where all workers see them; see ``dedup.PartitionStore``.

    Single rows are read where files can be mapped. In an object store, where each of them would be a request, rows are
    written again in the order in which ranges of them are asked for: a range is one request then.
    """

    folder: RunFolder

    @property
    def path(self) -> Path:
        """The folder that they are in."""
        return self.folder.path / "staged" / "partitions"

    def put(self, number: int, partition: VectorPartition) -> None:
        """Writes a partition: its vectors, and what else is known of its classes."""
        about = np.stack([getattr(partition, name) for name in _NUMBERS], axis=1)
        for name, array in (("classes", about), ("vectors", partition.vectors)):
            with atomic(self.path / f"{number:05d}.{name}.npy") as file:
                np.save(file, array, allow_pickle=False)

    def get(self, number: int, rows: npt.NDArray[np.int64] | Rows | None = None) -> VectorPartition:
        """A partition, or ``rows`` of it; its vectors memory-mapped where the folder is local."""
        about, vectors = self._load(number, "classes"), self._load(number, "vectors")
        if rows is not None:
            about, vectors = about[rows], vectors[rows]
        return VectorPartition(vectors=vectors, **dict(zip(_NUMBERS, np.array(about.T, order="C"), strict=True)))

    def put_ordered(self, number: int, partition: VectorPartition, rows: Rows) -> None:
        """Writes ``rows`` of a partition in that order, where single ones are slow to read."""
        if storage.is_local(self.path):
            return
        with atomic(self._ordered(number)) as file:
            for start in range(0, len(rows), _AT_ONCE):
                some = partition.take(rows[start : start + _AT_ONCE])
                records = np.empty(len(some), _record(some.vectors.shape[1]))
                for name in _COLUMNS:
                    records[name] = getattr(some, name)
                file.write(records.tobytes())

    def get_ordered(self, ranges: Ranges, dim: int) -> VectorPartition:
        """Rows of partitions, ``dim`` the dimensions of their vectors: where they are written in order, a request for
        each of the ``ranges``."""
        if storage.is_local(self.path):
            return VectorPartition.concat([self.get(number, rows) for number, _, rows in ranges])
        records = np.empty(len(ranges.rows), _record(dim))
        pieces = in_threads(partial(self._range, records.itemsize), ranges, storage.REQUESTS)
        end = 0
        for piece, count in zip(pieces, ranges.counts.tolist(), strict=True):
            records[end : end + count] = np.frombuffer(piece, records.dtype)
            end += count
        return VectorPartition(**{name: records[name] for name in _COLUMNS})

    def _range(self, size: int, of: tuple[int, int, Rows]) -> bytes:
        number, start, rows = of
        path, stop = self._ordered(number), start + len(rows)
        with undamaged(path, _AGAIN):
            return RemoteFile(str(path), stop * size).fetch(start * size, stop * size)

    def _ordered(self, number: int) -> Path:
        return self.path / f"{number:05d}.ordered"

    def _load(self, number: int, name: str) -> npt.NDArray[Any]:
        path = self.path / f"{number:05d}.{name}.npy"
        with undamaged(path, _AGAIN):
            return storage.load_array(path)

    def remove(self) -> None:
        """Removes them all."""
        storage.remove(self.path)


def _record(dim: int) -> np.dtype[np.void]:
    """A class of a partition in bytes."""
    return np.dtype([*((name, "<i8") for name in _NUMBERS), ("vectors", "<f4", (dim,))])


def vectors_of(folder: RunFolder, shard: int) -> Vectors:
    """The vectors of a shard's ledger rows. Raises ``RunFolderError`` where they are gone or damaged."""
    with undamaged(folder.vectors(shard, "image")):
        return folder.load_vectors(shard, "image")
