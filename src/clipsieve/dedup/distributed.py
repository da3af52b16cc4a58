"""``semantic`` by many workers, each of which sees a small part of the vectors: the same answer, to the last bit.

Here, and in memory, are numbers alone: up to 190 bytes for each image that is compared, measured with half of all
linked. Vectors are read by the workers, and here those of linked images, into an unnamed file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipsieve.core.spread import Spread
from clipsieve.core.threads import single_blas
from clipsieve.dedup import cells, methods
from clipsieve.dedup.classes import Classes
from clipsieve.dedup.neighbours import Neighbours
from clipsieve.dedup.partitions import (
    Digests,
    Fetch,
    InMemory,
    Partitioning,
    PartitionStore,
    StorePartition,
    UnreadPartition,
    Vectors,
    digests,
    labels,
)
from clipsieve.dedup.preference import Preference
from clipsieve.dedup.removal import check_links, decide, linked_classes
from clipsieve.dedup.result import Duplicates, Links, Numbers, Progress
from clipsieve.dedup.semantic import Method, check_dimensions, check_threshold, duplicates, is_approximate
from clipsieve.dedup.tiles import CompareTile, CountLinks, Distances, Tile, TileResult, known
from clipsieve.dedup.vectors import UnitVectors, distance_limit


def distributed(
    vectors: Vectors,
    of_vectors: Digests,
    threshold: float = 0.90,
    *,
    spread: Spread,
    store: PartitionStore,
    order: npt.ArrayLike | None = None,
    units: npt.ArrayLike | None = None,
    links: Links = "any",
    method: Method = "auto",
    against: npt.NDArray[np.floating] | None = None,
    progress: Progress | None = None,
    scratch: Path | None = None,
) -> Duplicates:
    """What ``semantic`` finds, by workers of ``spread``, in ``vectors`` of which ``digests`` gave ``of_vectors``.

    Workers leave partitions of vectors in ``store``. The other arguments are those of ``semantic``; ``scratch`` is the
    folder of the unnamed file, None for the system's.
    """
    check_threshold(threshold, method)
    check_links(links)
    n, others = len(of_vectors), 0 if against is None else len(against)
    preference = Preference.of(n, others, order, units)
    both = of_vectors if against is None else np.concatenate([of_vectors, digests(against)])
    classes = Classes.build(labels(both), preference)
    found = Neighbours(classes, preference, distance_limit(threshold))
    approximate = is_approximate(classes, method)
    partitioning = Partitioning.of(classes, n)
    put, of = StorePartition(store=store), (partitioning, classes, preference)
    dim = 0 if against is None else against.shape[1]
    for dim in spread(put, UnreadPartition.each(*of, vectors)):
        if against is not None and others:
            check_dimensions(dim, against.shape[1])
    for each in UnreadPartition.earlier(*of, InMemory(vectors=np.zeros((0, 0)) if against is None else against)):
        put(each)  # here, where they are
    work = _Work(
        spread=spread, store=store, partitioning=partitioning, dim=dim, found=found, progress=progress, scratch=scratch
    )
    work.compare_cells() if approximate else work.compare_tiles()
    recall = work.recall() if approximate else 1.0
    chosen = np.flatnonzero(linked_classes(found))
    with single_blas(), work.fetched(chosen) as linked:

        def distances(left: Numbers, right: Numbers) -> Numbers:
            return linked.distances(np.searchsorted(chosen, left), np.searchsorted(chosen, right))

        removal = decide(found, distances, links)
    return duplicates(found, removal, recall, approximate=approximate)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """What is done by workers, and how ``found`` takes it."""

    spread: Spread
    store: PartitionStore
    partitioning: Partitioning
    dim: int
    found: Neighbours
    progress: Progress | None
    scratch: Path | None

    def compare_tiles(self) -> None:
        """Every two classes, a tile at a time: each with those around it first, which tells what is not near it."""
        ours, every = self.partitioning.ours, len(self.partitioning)
        pairs = [(i, i + away) for away in range(every) for i in range(min(ours, every - away))]

        def tiles() -> Iterator[Tile]:
            for i, j in pairs:
                some = (i,) if i == j else (i, j)
                yield Tile(partitions=some, known=self._known(*(self.partitioning.classes(one) for one in some)))

        work = CompareTile(store=self.store, limit=self.found.limit, wanted=self.found.classes.wanted)
        self._take(self.spread(work, tiles()), len(pairs))

    def compare_cells(self) -> None:
        """Every two classes that meet in a cell; all, where each would be looked for in every cell."""
        count = len(self.found.classes)
        if cells.count(count) <= cells.NEAREST:
            self.compare_tiles()
            return
        random = np.random.default_rng(0)
        chosen = np.sort(random.choice(count, cells.sampled(count), replace=False))
        with self.fetched(chosen) as sample:
            centres = cells.centres(sample.raw(np.arange(sample.length)), count)
        assign = cells.Assign(store=self.store, centres=centres)
        every = cells.Cells.gather(self.spread(assign, range(len(self.partitioning))))
        occupied = every.occupied()

        def each() -> Iterator[cells.Cell]:
            for ranges, members in every.each(occupied):
                yield cells.Cell(ranges=ranges, members=members, known=self._known(self.partitioning.within(ranges)))

        work = cells.CompareCell(
            store=self.store, dim=self.dim, limit=self.found.limit, wanted=self.found.classes.wanted
        )
        self._take(self.spread(work, each()), len(occupied))

    def _known(self, *classes: Numbers) -> Distances:
        return known(self.found.key[np.concatenate(classes)], len(self.found.preference.rank))

    def _take(self, results: Iterator[TileResult], total: int) -> None:
        for done, result in enumerate(results, start=1):
            self.found.take(result.classes, result.distances, result.ranks)
            self.found.components.connect(*result.links)
            if self.progress:
                self.progress(done, total)

    def recall(self) -> float | None:
        """As ``methods.recall``, a partition at a time."""
        classes, root = self.found.classes, self.found.components.roots()
        if not classes.wanted:
            return None
        sample = methods.recall_sample(classes.wanted)
        with self.fetched(sample) as vectors:
            unit = vectors.unit(np.arange(len(sample)))
        work = CountLinks(
            store=self.store,
            unit=unit,
            exclusion_group=classes.exclusion_group[sample],
            root=root[sample],
            limit=self.found.limit,
        )
        partitions = ((number, root[self.partitioning.classes(number)]) for number in range(len(self.partitioning)))
        return methods.recall_of(self.spread(work, partitions))

    @contextmanager
    def fetched(self, classes: Numbers) -> Iterator[UnitVectors]:
        """The vectors of some ``classes``, in that order, in a file that goes when the block ends."""
        places = list(self.partitioning.place(classes))
        items = ((partition, rows) for partition, rows, _ in places)
        every: npt.NDArray[np.float32] = np.zeros((0, 1), dtype=np.float32)
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            for (_, _, chosen), some in zip(places, self.spread(Fetch(store=self.store), items), strict=True):
                if not len(every):
                    every = np.memmap(file, np.float32, "w+", shape=(len(classes), some.shape[1]))
                every[chosen] = some
            yield UnitVectors(every)
