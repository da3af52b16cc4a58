"""The vectors of a run as workers read them: those of its shards, and partitions of them while they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve.core import storage
from clipsieve.core.contracts import Vectors
from clipsieve.dedup import VectorPartition
from clipsieve.runfolder import RunFolder, atomic, undamaged

Rows = npt.NDArray[np.int32]
"""Rows of a shard's ledger part."""


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
        starts = np.cumsum([0, *map(len, self.rows)])
        ends = np.searchsorted(images, starts)
        return ShardRows(
            folder=self.folder,
            rows=[
                (self.shards[place], self.rows[place][images[ends[place] : ends[place + 1]] - starts[place]])
                for place in np.flatnonzero(np.diff(ends)).tolist()
            ],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PartitionFiles:
    """Partitions in the run folder, where all workers see them; see ``dedup.PartitionStore``."""

    folder: RunFolder

    @property
    def path(self) -> Path:
        """The folder that they are in."""
        return self.folder.path / "staged" / "partitions"

    def put(self, number: int, partition: VectorPartition) -> None:
        """Writes a partition: its vectors, and what else is known of its classes."""
        about = np.stack([partition.classes, partition.rank, partition.unit, partition.other], axis=1)
        for name, array in (("classes", about), ("vectors", partition.vectors)):
            with atomic(self.path / f"{number:05d}.{name}.npy") as file:
                np.save(file, array, allow_pickle=False)

    def get(self, number: int, rows: npt.NDArray[np.int64] | None = None) -> VectorPartition:
        """A partition, or ``rows`` of it; its vectors memory-mapped where the folder is local."""
        about, vectors = self._load(number, "classes"), self._load(number, "vectors")
        if rows is not None:
            about, vectors = about[rows], vectors[rows]
        classes, rank, unit, other = np.array(about.T, order="C")
        return VectorPartition(vectors=vectors, classes=classes, rank=rank, unit=unit, other=other)

    def _load(self, number: int, name: str) -> npt.NDArray[Any]:
        path = self.path / f"{number:05d}.{name}.npy"
        with undamaged(path, "run the same command again"):
            return storage.load_array(path)

    def remove(self) -> None:
        """Removes them all."""
        storage.remove(self.path)


def vectors_of(folder: RunFolder, shard: int) -> Vectors:
    """The vectors of a shard's ledger rows. Raises ``RunFolderError`` where they are gone or damaged."""
    with undamaged(folder.vectors(shard, "image")):
        return folder.load_vectors(shard, "image")
