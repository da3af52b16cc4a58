"""A tile: the classes of two partitions, compared with each other alone and in one thread by the search of ``search``.

What it finds is put together with what other tiles find in any order: the least of keys, and links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.core.threads import single_blas
from clipsieve.dedup.classes import Classes
from clipsieve.dedup.clusters import clusters
from clipsieve.dedup.methods import links_met
from clipsieve.dedup.neighbours import NONE, Neighbours
from clipsieve.dedup.partitions import PartitionStore, VectorPartition
from clipsieve.dedup.preference import Preference
from clipsieve.dedup.result import Numbers
from clipsieve.dedup.search import BLOCK, STRIP, Search
from clipsieve.dedup.sketch import sketch
from clipsieve.dedup.vectors import DECIMALS, Floats, UnitVectors

SMALL = 4096
"""Up to so many classes on either side all are compared with all at once: sketches of them would take longer."""


UNKNOWN = 2 * DECIMALS + 1
"""A distance larger than any."""

Distances: TypeAlias = npt.NDArray[np.int32]


def known(keys: Numbers, images: int) -> Distances:
    """The distances in some keys of ``Neighbours`` over so many ``images``, ``UNKNOWN`` where nothing was found."""
    return np.minimum(keys // images, UNKNOWN).astype(np.int32)


Group: TypeAlias = tuple[Numbers, Numbers | None]
"""Rows of which each is compared with each of others that are none of them, or with each other for None."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TileResult:
    """What was found: of some ``classes`` distance and rank of the nearest image, and ``links`` ``(2, links)``.

    Links are no more than it takes to connect what they connect.
    """

    classes: Numbers
    distances: Numbers
    ranks: Numbers
    links: Numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """Two partitions, or one that is compared with itself; ``known`` are the distances that their classes have found.

    They halve the time: two partitions of 32,768 that had been compared with themselves took 3.6 s instead of 7.9 s.
    """

    partitions: tuple[int, ...]
    known: Distances


@dataclass(frozen=True, kw_only=True)
class CompareTile:
    """Work: compares the partitions of a tile; ``limit`` is the largest distance of a link, and classes from ``wanted``
    on have no image of the input."""

    store: PartitionStore
    limit: int
    wanted: int

    def __call__(self, tile: Tile) -> TileResult:
        partitions = [self.store.get(number) for number in tile.partitions]
        ends = np.cumsum([len(one) for one in partitions]).tolist()
        left = np.arange(ends[0])
        right = None if len(ends) == 1 else np.arange(ends[0], ends[1])
        return compare(partitions, [(left, right)], tile.known, limit=self.limit, wanted=self.wanted)


@dataclass(frozen=True, kw_only=True, eq=False)
class CountLinks:
    """Work: counts the links of a sample of classes with those of a partition, whose roots come along, and how many of
    them are between classes that are connected. ``unit`` ``(sample, dim)`` are the sample's vectors."""

    store: PartitionStore
    unit: Floats
    exclusion_group: Numbers
    root: Numbers
    limit: int

    def __call__(self, item: tuple[int, Numbers]) -> tuple[int, int]:
        number, root = item
        partition = self.store.get(number)
        vectors, exclusion_group = UnitVectors(partition.vectors), partition.exclusion_group
        links = met = 0
        for start in range(0, len(partition), BLOCK):
            some = np.arange(start, min(start + BLOCK, len(partition)))
            strangers = self.exclusion_group[:, None] != exclusion_group[some]
            together = self.root[:, None] == root[some]
            counted = links_met(self.unit @ vectors.unit(some).T, self.limit, strangers, together)
            links, met = links + counted[0], met + counted[1]
        return links, met


def compare(
    partitions: Sequence[VectorPartition], groups: Sequence[Group], known: Distances, *, limit: int, wanted: int
) -> TileResult:
    """Compares ``groups`` of rows of ``partitions``, at most two, taken as one; those with an image of the input come
    before others. Who is farther from a class than its ``known`` nearest is passed over."""
    classes, rank, unit, other = (
        np.concatenate([getattr(one, name) for one in partitions]) for name in ("classes", "rank", "unit", "other")
    )
    mixed = np.flatnonzero(other >= 0)
    ranks, dense = np.unique(np.concatenate([rank, other[mixed]]), return_inverse=True)
    second = np.full(len(classes), -1, dtype=np.int64)
    # The second images of mixed classes have a rank and no vector: they are named, never compared.
    second[mixed] = len(classes) + np.arange(len(mixed))
    local = Classes(
        of=np.arange(len(classes)),
        first=np.arange(len(classes)),
        second=second,
        exclusion_group=np.where(other < 0, unit, -1 - classes),
        wanted=int(np.count_nonzero(classes < wanted)),
    )
    found = Neighbours(local, Preference(n=len(classes), rank=dense, unit=unit), limit)
    with single_blas():
        _search(UnitVectors(*(one.vectors for one in partitions)), found, groups, known)
    distances, places = np.divmod(found.key, max(len(found.preference.rank), 1))
    told = np.flatnonzero((found.key >= 0) & (distances <= known) & (found.key != NONE))
    roots = found.components.roots()
    linked = np.flatnonzero(roots != np.arange(len(roots)))
    return TileResult(
        classes=classes[told],
        distances=distances[told],
        ranks=ranks[places[told]],
        links=np.stack([classes[linked], classes[roots[linked]]]),
    )


def _search(vectors: UnitVectors, found: Neighbours, groups: Sequence[Group], known: Distances) -> None:
    """Offers ``found`` every pair across ``groups`` that can be a nearest one or a link."""
    search = Search(vectors, found)
    # Half a decimal less, as distances are rounded.
    np.maximum(search.low, 1 - (known + np.float32(0.5)) / np.float32(DECIMALS), out=search.low)
    if all(min(len(left), len(left if right is None else right)) <= SMALL for left, right in groups):
        for left, right in groups:
            for one, other in _blocks(left, right, BLOCK):
                search.compare(one, other)
        search.finish()
        return
    rows = found.classes.first
    bounds = sketch(vectors, rows)
    sides = [(np.isin(rows, left), None if right is None else np.isin(rows, right)) for left, right in groups]
    for cluster in clusters(bounds, threads=1):
        for mine, theirs in sides:
            near = cluster.members[mine[cluster.members]]
            others = None if theirs is None else cluster.members[theirs[cluster.members]]
            for one, other in _blocks(near, others, BLOCK):
                search.compare(one, other)
    search.finish()
    for left, right in groups:
        # Those that ask for little come first, so that the least of a block is near what each of its classes asks for.
        asking = left[np.argsort(search.low[left], kind="stable")]
        asked = None if right is None else right[np.argsort(search.low[right], kind="stable")]
        for one, other in _blocks(asking, asked, STRIP):
            search.screen(one, other, bounds)
    search.finish()


def _blocks(left: Numbers, right: Numbers | None, width: int) -> list[tuple[Numbers, Numbers]]:
    """Blocks that hold each of ``left`` with each of ``right``; for None, every two of ``left`` once."""
    others = left if right is None else right
    return [
        (left[i : i + BLOCK], others[j : j + width])
        for i in range(0, len(left), BLOCK)
        for j in range(i if right is None else 0, len(others), width)
    ]
