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

from clipsieve.core.layout import Mask
from clipsieve.dedup.clusters import SAMPLE, means_of, nearest_of
from clipsieve.dedup.partitions import PartitionStore, Ranges, Rows
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
    """Which classes of a partition are in which cell: ``rows[ends[2 * i]:ends[2 * i + 1]]`` are members of cell ``i``,
    and those behind them up to ``ends[2 * i + 2]`` visit it."""

    rows: Rows
    ends: npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Assign:
    """Work: puts the classes of a partition into cells, and tells the store in which order cells will ask for them."""

    store: PartitionStore
    centres: Floats

    def __call__(self, number: int) -> Assigned:
        partition = self.store.get(number)
        vectors = UnitVectors(partition.vectors)
        near = nearest_of(vectors.unit(np.arange(vectors.length)), self.centres, NEAREST, threads=1)
        places = 2 * near + (np.arange(NEAREST) > 0)
        order = np.argsort(places, axis=None, kind="stable")
        rows = (order // NEAREST).astype(np.int32)
        ends = np.cumsum(np.bincount(places.ravel(), minlength=2 * len(self.centres)))
        self.store.put_ordered(number, partition, rows)
        return Assigned(rows=rows, ends=np.append(0, ends).astype(np.int32))


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """Which classes of all partitions are in which cell: the ``rows`` of each partition as in ``Assigned``, and the
    ``ends`` of all, ``(2 * cells + 1, partitions)``, so that those of one cell lie together."""

    rows: Sequence[Rows]
    ends: npt.NDArray[np.int32]

    @classmethod
    def gather(cls, assigned: Iterable[Assigned]) -> Cells:
        """From all partitions, in order."""
        # Copies: what a cluster hands out are views of its memory, which would stay there as long.
        every = [(some.rows.copy(), some.ends) for some in assigned]
        return cls(rows=[rows for rows, _ in every], ends=np.stack([ends for _, ends in every], axis=1))

    def occupied(self) -> list[int]:
        """The cells that have members."""
        upto = self.ends.sum(axis=1, dtype=np.int64)
        return np.flatnonzero(np.diff(upto)[::2]).tolist()

    def each(self, chosen: Iterable[int]) -> Iterator[tuple[Ranges, Mask]]:
        """What is in each ``chosen`` cell, and which of it are members."""
        for cell in chosen:
            starts, middles, stops = self.ends[2 * cell : 2 * cell + 3]
            numbers = np.flatnonzero(stops > starts)
            starts, middles, stops = starts[numbers], middles[numbers], stops[numbers]
            rows = [
                self.rows[number][start:stop]
                for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops.tolist(), strict=True)
            ]
            ranges = Ranges(numbers=numbers, starts=starts, rows=np.concatenate(rows), counts=stops - starts)
            yield ranges, ranges.places() < np.repeat(middles, ranges.counts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """What is in a cell, which of it are members, and the distances found so far."""

    ranges: Ranges
    members: Mask
    known: Distances


@dataclass(frozen=True, kw_only=True)
class CompareCell:
    """Work: compares the members of a cell, of ``dim`` dimensions, with each other and with its visitors."""

    store: PartitionStore
    dim: int
    limit: int
    wanted: int

    def __call__(self, cell: Cell) -> TileResult:
        whole = self.store.get_ordered(cell.ranges, self.dim)
        ours = whole.classes < self.wanted
        members, visitors = (np.flatnonzero(ours & mask) for mask in (cell.members, ~cell.members))
        # Of two classes of the earlier data set nothing is asked.
        theirs, their_members = np.flatnonzero(~ours), np.flatnonzero(~ours & cell.members)
        groups = [(members, None), (members, visitors), (members, theirs), (visitors, their_members)]
        return compare([whole], groups, cell.known, limit=self.limit, wanted=self.wanted)
