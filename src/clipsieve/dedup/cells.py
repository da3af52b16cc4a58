"""An approximate search over many workers: cells that overlap, each compared within itself.

A class is a member of the cell whose centre is nearest to it and visits those of the next nearest; members are
compared with members and visitors. Cells are what a worker is sent, thousands of classes each, so that there are few of
them; ``clusters`` are the blocks, of hundreds, in which one process goes through what it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.dedup.clusters import SAMPLE, means_of, nearest_of
from clipsieve.dedup.partitions import PartitionStore, VectorPartition
from clipsieve.dedup.result import Numbers
from clipsieve.dedup.tiles import Distances, TileResult, compare
from clipsieve.dedup.vectors import Floats, UnitVectors

FEWEST, MOST = 2**12, 2**14
"""Members of a cell on average; with its visitors one of 4,096 is compared in a few seconds of one core."""

CELLS = 4000
"""Cells beyond which they are made larger, up to ``MOST``."""

NEAREST = 16
"""Cells that a class is looked for in: each vector is read so many times. Of 100 cells, this found all that was to be
removed among 100,000, and 99.5 % of the nearest: ``benchmarks/duplicates_tiles.py``."""


def centres(sample: Floats, classes: int) -> Floats:
    """Directions of the cells of so many ``classes``, from a ``sample`` of their vectors as ``sampled`` says."""
    return means_of(UnitVectors(sample).unit(np.arange(len(sample))), count(classes), np.random.default_rng(0))


def sampled(classes: int) -> int:
    """Of how many classes the centres are made."""
    return min(SAMPLE * count(classes), classes)


def count(classes: int) -> int:
    """How many cells there are of so many classes."""
    return max(classes // min(max(classes // CELLS, FEWEST), MOST), 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Assigned:
    """Which classes of a partition are in which cell: of cell ``i``, ``places[ends[i]:ends[i + 1]]``.

    A place is ``row + k * j`` for a partition of ``k`` classes, where the cell is the ``j``-th nearest of a class.
    """

    places: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Assign:
    """Work: puts the classes of a partition into cells."""

    store: PartitionStore
    centres: Floats

    def __call__(self, number: int) -> Assigned:
        vectors = UnitVectors(self.store.get(number).vectors)
        near = nearest_of(vectors.unit(np.arange(vectors.length)), self.centres, NEAREST, threads=1)
        cells = near.T.ravel()
        order = np.argsort(cells, kind="stable")
        ends = np.cumsum(np.bincount(cells, minlength=len(self.centres)))
        return Assigned(places=order.astype(np.int32), ends=np.append(0, ends).astype(np.int32))


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """Members and visitors of a cell: rows of partitions, which of them are members, and the distances found so far."""

    rows: Sequence[tuple[int, Numbers]]
    members: npt.NDArray[np.bool_]
    known: Distances


def occupied(assigned: Sequence[Assigned], sizes: Sequence[int]) -> list[int]:
    """The cells that have members; ``sizes`` are those of the partitions."""
    members = np.zeros(len(assigned[0].ends) - 1, dtype=np.int64)
    for some, size in zip(assigned, sizes, strict=True):
        upto = np.append(0, np.cumsum(some.places < size))[some.ends]
        members += np.diff(upto)
    return np.flatnonzero(members).tolist()


def cells(
    assigned: Sequence[Assigned], sizes: Sequence[int], chosen: Iterable[int]
) -> Iterator[tuple[list[tuple[int, Numbers]], npt.NDArray[np.bool_]]]:
    """The rows of each ``chosen`` cell, and which are its members; ``sizes`` are those of the partitions."""
    for cell in chosen:
        rows, members = [], []
        for number, (some, size) in enumerate(zip(assigned, sizes, strict=True)):
            places = some.places[some.ends[cell] : some.ends[cell + 1]]
            if len(places):
                rows.append((number, np.sort(places % size).astype(np.int64)))
                members.append(places[np.argsort(places % size)] < size)
        yield rows, np.concatenate(members)


@dataclass(frozen=True, kw_only=True)
class CompareCell:
    """Work: compares the members of a cell with each other and with its visitors."""

    store: PartitionStore
    limit: int
    wanted: int

    def __call__(self, cell: Cell) -> TileResult:
        whole = VectorPartition.concat([self.store.get(number, rows) for number, rows in cell.rows])
        ours = whole.classes < self.wanted
        members, visitors = (np.flatnonzero(ours & mask) for mask in (cell.members, ~cell.members))
        # Of two classes of the earlier data set nothing is asked.
        theirs, their_members = np.flatnonzero(~ours), np.flatnonzero(~ours & cell.members)
        groups = [(members, None), (members, visitors), (members, theirs), (visitors, their_members)]
        return compare([whole], groups, cell.known, limit=self.limit, wanted=self.wanted)
