"""Which images go: the links within each connected component, gone through block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np

from clipsieve.core.layout import Mask
from clipsieve.dedup.components import Components
from clipsieve.dedup.neighbours import NONE, DistanceFunction, Neighbours
from clipsieve.dedup.result import Links, Numbers

BLOCK = 512
"""Classes compared at once: components are small, so larger blocks would mostly compare strangers."""


def check_links(links: str) -> None:
    """Raises ``ValueError`` unless ``links`` is one of the kinds there are."""
    if links not in get_args(Links):
        raise ValueError(f"links is one of {', '.join(get_args(Links))}, not {links!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Removal:
    """The parts of ``Duplicates`` that links decide, ``(n,)`` each."""

    removed: Mask
    group: Numbers
    duplicate_of: Numbers


def decide(found: Neighbours, distances: DistanceFunction, links: Links) -> Removal:
    """Removes by ``links``; ``found`` has seen every link, or at least a chain of links between those it joins."""
    linked = Linked(found, distances)
    removed = {"any": linked.to_any, "leader": linked.to_leader, "group": linked.in_group}[links]()
    n = found.preference.n
    return Removal(removed=removed[:n], group=linked.group()[:n], duplicate_of=linked.duplicate_of(removed)[:n])


def linked_classes(found: Neighbours) -> Mask:
    """Classes with a link, ``(classes,)``: to others, or among their own images."""
    root = found.components.roots()
    return found.classes.mixed | (np.bincount(root, minlength=len(root))[root] > 1)


class Linked:
    """The images that have a link, ``images``, and their classes by component, ``classes``."""

    def __init__(self, found: Neighbours, distances: DistanceFunction) -> None:
        self.distances, self.limit = distances, found.limit
        self.rank, self.unit, self.n = found.preference.rank, found.preference.unit, found.preference.n
        self.of, self.first = found.classes.of, found.classes.first
        self.root = found.components.roots()
        linked = linked_classes(found)
        classes = np.flatnonzero(linked)
        self.classes = classes[np.lexsort((self.rank[self.first[classes]], self.root[classes]))]
        self.images = np.flatnonzero((self.of >= 0) & np.append(linked, False)[self.of])
        # Images of one unit go together, so units connect components.
        units = Components(len(self.unit))
        units.connect(self.unit[self.images], self.unit[self.first[self.root[self.of[self.images]]]])
        self.unit_root = units.roots()

    def group(self) -> Numbers:
        """The lowest number of an image in each image's component, ``(images,)``."""
        roots = self.root[self.of[self.images]]
        lowest = np.full(len(self.root), NONE)
        np.minimum.at(lowest, roots, self.images)
        group = np.full(len(self.of), -1, dtype=np.int64)
        group[self.images] = lowest[roots]
        return group

    def to_any(self) -> Mask:
        """Images with a link to any earlier unit, ``(images,)``."""
        earliest = np.full(len(self.first), NONE)
        for rows, columns, distances in self._blocks(self.classes, self.classes):
            units = np.where(distances <= self.limit, self.unit[self.first[columns]], NONE).min(axis=1)
            earliest[rows] = np.minimum(earliest[rows], units)
        return self._mask(self.images[earliest[self.of[self.images]] < self.unit[self.images]])

    def in_group(self) -> Mask:
        """Images with a link whose unit is not the first that links connect it with, ``(images,)``."""
        units = self.unit[self.images]
        return self._mask(self.images[self.unit_root[units] != units])

    def to_leader(self) -> Mask:
        """Images with a link to an earlier unit that stays, ``(images,)``: decided in order of preference."""
        images = self.images[np.lexsort((self.rank[self.images], self.unit_root[self.unit[self.images]]))]
        removed: list[Numbers] = []
        staying = np.zeros(0, dtype=np.int64)
        component = -1
        for chunk in self._whole_units(images):
            if self.unit_root[self.unit[chunk[0]]] != component:
                staying = staying[:0]
            component = self.unit_root[self.unit[chunk[-1]]]
            gone, classes = self._leaders(chunk, staying)
            removed.append(gone)
            staying = np.union1d(staying, classes)
        return self._mask(np.concatenate([images[:0], *removed]))

    def _leaders(self, chunk: Numbers, staying: Numbers) -> tuple[Numbers, Numbers]:
        """The images of ``chunk`` that go, and the classes of the last component in it that have one that stays."""
        classes, place = np.unique(self.of[chunk], return_inverse=True)
        covered = np.zeros(len(classes), dtype=bool)
        for start in range(0, len(staying), BLOCK):
            covered |= (self.distances(classes, staying[start : start + BLOCK]) <= self.limit).any(axis=1)
        linked = self.distances(classes, classes) <= self.limit
        stays = np.isin(classes, staying)
        gone = []
        for unit in _runs(self.unit[chunk]):
            images, mine = chunk[unit], place[unit]
            hit = covered[mine]
            if hit.any() and images[0] < self.n:
                gone.append(images[hit])
            else:
                covered |= linked[mine].any(axis=0)
                stays[mine] = True
        last = self.unit_root[self.unit[self.first[classes]]] == self.unit_root[self.unit[chunk[-1]]]
        return np.concatenate([chunk[:0], *gone]), classes[stays & last]

    def duplicate_of(self, removed: Mask) -> Numbers:
        """For each removed image the nearest one that it has a link to and that stays, ``(images,)``; -1 for none."""
        total = len(self.rank)
        goes = np.zeros(total, dtype=bool)
        goes[self.unit[removed]] = True
        stay = self.images[~goes[self.unit[self.images]]]
        staying = np.full(len(self.first), NONE)
        np.minimum.at(staying, self.of[stay], self.rank[stay])

        # An identical image that stays is the nearest there is; only where there is none are others looked at.
        key = np.full(len(self.first), NONE)
        gone = np.flatnonzero(removed)
        rows = np.isin(self.classes, self.of[gone]) & (staying[self.classes] == NONE)
        columns = self.classes[staying[self.classes] != NONE]
        for some, others, distances in self._blocks(self.classes[rows], columns):
            keys = np.where(distances <= self.limit, distances * total + staying[others], NONE).min(axis=1)
            key[some] = np.minimum(key[some], keys)
        place = np.where(staying != NONE, staying, np.where(key != NONE, key % total, total))

        nearest = np.full(total, -1, dtype=np.int64)
        nearest[gone] = np.append(np.argsort(self.rank), -1)[place[self.of[gone]]]
        return nearest

    def _mask(self, images: Numbers) -> Mask:
        mask = np.zeros(len(self.of), dtype=bool)
        mask[images] = True
        return mask & (np.arange(len(mask)) < self.n)

    def _blocks(self, rows: Numbers, columns: Numbers) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
        """Distances between classes of the same components, both sorted by component; some of others come along."""
        starts = np.searchsorted(self.root[columns], self.root[rows], side="left")
        stops = np.searchsorted(self.root[columns], self.root[rows], side="right")
        for top in range(0, len(rows), BLOCK):
            bottom = min(top + BLOCK, len(rows))
            for left in range(int(starts[top]), int(stops[bottom - 1]), BLOCK):
                others = columns[left : min(left + BLOCK, int(stops[bottom - 1]))]
                yield rows[top:bottom], others, self.distances(rows[top:bottom], others)

    def _whole_units(self, images: Numbers) -> Iterator[Numbers]:
        """Runs of about ``BLOCK`` images that end where a unit ends."""
        ends = np.append(np.flatnonzero(np.diff(self.unit[images])) + 1, len(images))
        start = 0
        while start < len(images):
            stop = int(ends[min(int(np.searchsorted(ends, start + BLOCK)), len(ends) - 1)])
            yield images[start:stop]
            start = stop


def _runs(values: Numbers) -> Iterator[slice]:
    """Runs of equal values."""
    ends = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return map(slice, ends[:-1], ends[1:])
