"""Vectors of many images cut into partitions that a worker can hold two of: what is sent to it, and what it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clipsieve.dedup.classes import Classes
from clipsieve.dedup.preference import Preference
from clipsieve.dedup.result import Numbers
from clipsieve.dedup.vectors import ROWS, Floats, UnitVectors

FEWEST, MOST = 2**15, 2**16
"""Classes of a partition: two of 32,768 are compared in some 4 seconds of one core, two of 65,536 (256 MB at 512
dimensions) in 15."""

PARTITIONS = 100
"""Partitions beyond which they are made larger, up to ``MOST``: they make 5,000 tiles."""

Digests = npt.NDArray[np.uint64]
"""``(n, 2)``: 128 bits for each vector, equal for equal vectors alone; zeros for a row that is not usable."""


class Located(Protocol):
    """Some vectors that lie where every worker can read them; small, and can be pickled."""

    def read(self) -> Floats:
        """``(rows, dim)`` float32."""
        ...


class Vectors(Protocol):
    """The vectors of all images that are compared."""

    def locate(self, images: Numbers) -> Located:
        """Those of some ``images``, which ascend."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class InMemory:
    """Vectors in memory, as ``Vectors`` and as ``Located``."""

    vectors: npt.NDArray[np.floating]

    def locate(self, images: Numbers) -> InMemory:
        """Those of some ``images``."""
        return InMemory(vectors=self.vectors[images])

    def read(self) -> Floats:
        """``(rows, dim)`` float32."""
        return np.asarray(self.vectors, dtype=np.float32)


Rows = npt.NDArray[np.int32]
"""Rows of a partition."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorPartition:
    """Some classes of identical images: ``vectors`` ``(k, dim)``, the rest ``(k,)``.

    ``classes`` are their numbers, ``rank`` and ``unit`` those of the first image, ``other`` the rank of the first image
    of another unit in the class, -1 where there is none.
    """

    vectors: Floats
    classes: Numbers
    rank: Numbers
    unit: Numbers
    other: Numbers

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def concat(cls, some: Sequence[VectorPartition]) -> VectorPartition:
        """Several as one."""
        return cls(**{each.name: np.concatenate([getattr(one, each.name) for one in some]) for each in fields(cls)})

    def take(self, rows: Numbers | Rows) -> VectorPartition:
        """Some of its classes."""
        return VectorPartition(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    @property
    def exclusion_group(self) -> Numbers:
        """As ``Classes`` has it: equal for classes that are not compared with each other."""
        return np.where(self.other < 0, self.unit, -1 - self.classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranges:
    """Ranges of rows of several partitions in the order that ``PartitionStore.put_ordered`` was told.

    Of each partition in ``numbers`` there are ``counts`` of them, the first at ``starts`` in that order, ``(k,)`` each;
    ``rows`` are those of all, one range after the other.
    """

    numbers: Numbers
    starts: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    rows: Rows

    def __iter__(self) -> Iterator[tuple[int, int, Rows]]:
        """Number, start and rows of each range."""
        rows = np.split(self.rows, np.cumsum(self.counts)[:-1])
        return zip(self.numbers.tolist(), self.starts.tolist(), rows, strict=True)

    def places(self) -> Numbers:
        """Where each of ``rows`` stands in the order of its partition."""
        before = np.cumsum(self.counts) - self.counts
        places: Numbers = np.arange(len(self.rows)) + np.repeat(self.starts - before, self.counts)
        return places


class PartitionStore(Protocol):
    """Where partitions stand while they are compared, for all workers; can be pickled."""

    def put(self, number: int, partition: VectorPartition) -> None:
        """Keeps a partition; again is no harm."""
        ...

    def get(self, number: int, rows: Numbers | Rows | None = None) -> VectorPartition:
        """A partition, or ``rows`` of it."""
        ...

    def put_ordered(self, number: int, partition: VectorPartition, rows: Rows) -> None:
        """Is told in which order ``get_ordered`` will ask for ``rows`` of a partition, each of them any number of
        times: a store that reads single rows slowly may keep them so. Again is no harm."""
        ...

    def get_ordered(self, ranges: Ranges, dim: int) -> VectorPartition:
        """Some of what ``put_ordered`` was told of, with vectors of ``dim`` dimensions."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Partitioning:
    """Which classes make which partition: number ``i`` holds ``order[starts[i]:starts[i + 1]]``.

    The first ``ours`` partitions hold the classes with an image of the input. Neighbours lie where their images do, so
    that a partition is read from few files.
    """

    order: Numbers
    starts: Numbers
    ours: int
    image: Numbers
    """An image of each class, one of the input where there is one, ``(classes,)``."""

    @classmethod
    def of(cls, classes: Classes, n: int) -> Partitioning:
        """For the ``n`` images of the input and those of an earlier data set behind them."""
        image = classes.first.copy()
        image[: classes.wanted] = n
        mine = np.flatnonzero(classes.of[:n] >= 0)
        np.minimum.at(image, classes.of[mine], mine)
        size = min(max(-(-len(classes) // PARTITIONS), FEWEST), MOST)
        ours = [*range(0, classes.wanted, size)]
        starts = np.array([*ours, *range(classes.wanted, len(classes), size), len(classes)])
        return cls(order=np.argsort(image, kind="stable"), starts=starts, ours=len(ours), image=image)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def classes(self, partition: int) -> Numbers:
        """Those of one partition."""
        return self.order[self.starts[partition] : self.starts[partition + 1]]

    def within(self, ranges: Ranges) -> Numbers:
        """The classes in some ranges of partitions, in that order."""
        places = np.repeat(self.starts[ranges.numbers], ranges.counts) + ranges.rows
        classes: Numbers = self.order[places]
        return classes

    def place(self, classes: Numbers) -> Iterator[tuple[int, Numbers, Numbers]]:
        """Where ``classes`` stand: the partitions that have some, the rows there, and which of ``classes`` they are."""
        by_class = np.empty_like(self.order)
        by_class[self.order] = np.arange(len(self.order))
        order = np.argsort(by_class[classes])
        rows = by_class[classes][order]
        ends = np.searchsorted(rows, self.starts)
        for partition in np.flatnonzero(np.diff(ends)).tolist():
            some = slice(ends[partition], ends[partition + 1])
            yield partition, rows[some] - self.starts[partition], order[some]


@dataclass(frozen=True, kw_only=True, eq=False)
class UnreadPartition:
    """A partition whose vectors are still to be read."""

    number: int
    located: Located
    classes: Numbers
    rank: Numbers
    unit: Numbers
    other: Numbers

    @classmethod
    def each(
        cls, partitioning: Partitioning, classes: Classes, preference: Preference, vectors: Vectors
    ) -> Iterator[UnreadPartition]:
        """Those of the input, from its ``vectors``."""
        for number in range(partitioning.ours):
            yield cls._of(number, partitioning, classes, preference, vectors, 0)

    @classmethod
    def earlier(
        cls, partitioning: Partitioning, classes: Classes, preference: Preference, vectors: Vectors
    ) -> Iterator[UnreadPartition]:
        """Those of the earlier data set alone, from its ``vectors``."""
        for number in range(partitioning.ours, len(partitioning)):
            yield cls._of(number, partitioning, classes, preference, vectors, preference.n)

    @classmethod
    def _of(
        cls,
        number: int,
        partitioning: Partitioning,
        classes: Classes,
        preference: Preference,
        vectors: Vectors,
        before: int,
    ) -> UnreadPartition:
        some = partitioning.classes(number)
        first, second = classes.first[some], classes.second[some]
        return cls(
            number=number,
            located=vectors.locate(partitioning.image[some] - before),
            classes=some,
            rank=preference.rank[first],
            unit=preference.unit[first],
            other=np.where(second < 0, -1, preference.rank[second]),
        )


@dataclass(frozen=True, kw_only=True)
class StorePartition:
    """Work: reads a partition, puts it in the store and gives the dimensions of its vectors."""

    store: PartitionStore

    def __call__(self, item: UnreadPartition) -> int:
        partition = VectorPartition(
            vectors=item.located.read(), classes=item.classes, rank=item.rank, unit=item.unit, other=item.other
        )
        self.store.put(item.number, partition)
        return int(partition.vectors.shape[1])


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Work: the vectors of some rows of a partition."""

    store: PartitionStore

    def __call__(self, item: tuple[int, Numbers]) -> Floats:
        return self.store.get(*item).vectors


def digests(vectors: npt.NDArray[np.floating]) -> Digests:
    """Those of the rows of ``vectors`` ``(n, dim)``."""
    rows = UnitVectors(vectors)
    found = np.zeros((rows.length, 2), dtype=np.uint64)
    usable = np.flatnonzero(rows.usable)
    for start in range(0, len(usable), ROWS):
        some = usable[start : start + ROWS]
        # Adding zero makes -0 and 0 the same bits.
        bits = [hashlib.blake2b(row, digest_size=16).digest() for row in rows.raw(some) + np.float32(0)]
        found[some] = np.frombuffer(b"".join(bits), dtype=np.uint64).reshape(-1, 2)
    return found


def labels(found: Digests) -> Numbers:
    """A number for each distinct digest, ``(n,)``; -1 for rows that are not usable."""
    order = np.lexsort((found[:, 1], found[:, 0]))
    ordered = found[order]
    begins = np.ones(len(found), dtype=bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.empty(len(found), dtype=np.int64)
    numbers[order] = np.cumsum(begins)
    numbers[~found.any(axis=1)] = -1
    return numbers
