"""The pairs of near duplicates themselves, found when asked for: of 5,000 equal images there are 12 million."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from clipsieve.core.spread import for_each
from clipsieve.core.threads import single_blas
from clipsieve.dedup.result import Duplicates, Numbers
from clipsieve.dedup.semantic import semantic
from clipsieve.dedup.vectors import DECIMALS, ROWS, Doubles, UnitVectors, distance_limit

BLOCK = 256
"""Images whose pairs are found at once."""

CELLS = 2**22
"""Distances that are held at once, 16 MB: fewer images make a block where there is more to compare them with."""


class Pair(NamedTuple):
    """Two images, ``first`` before ``second``, and the cosine of their vectors with 5 decimals."""

    first: int
    second: int
    similarity: float


class Pairs(Sequence[Pair]):
    """Every two images whose vectors have a cosine at or above ``threshold``, ordered by ``first``, then ``second``.

    ``vectors`` ``(n, dim)`` are as for ``semantic``; images are numbered as they come. ``found`` is what ``semantic``
    found of the same vectors and threshold, without ``units`` or ``against``; when it is not given, a search is made.
    With ``links="any"`` and no ``order`` what it removes is every image that is a ``second`` here, and no other.

    Their number is exact and any is found by its place, yet what is kept is one number an image and the distances of
    one block of images. Not for use by several threads at once. Raises ``ValueError`` as ``semantic`` does.
    """

    def __init__(self, vectors: npt.ArrayLike, threshold: float = 0.90, *, found: Duplicates | None = None) -> None:
        found = semantic(vectors, threshold) if found is None else found
        self._vectors = UnitVectors(np.asarray(vectors))
        if len(found.group) != self._vectors.length:
            raise ValueError(f"found is of {len(found.group)} images, vectors is of {self._vectors.length}")
        self._limit = distance_limit(threshold)
        self._images = np.flatnonzero(found.group >= 0)  # those with a link; no other is in a pair
        self._group = found.group[self._images]
        # Identical images are compared once: of each class one image stands for all.
        labels = self._vectors.labels()[self._images]
        _, first, self._class = np.unique(labels, return_index=True, return_inverse=True)
        self._example, self._class_group = self._images[first], self._group[first]
        _, sizes = np.unique(self._class_group, return_counts=True)
        largest, total = max(sizes, default=1), max(len(first), 1)
        self._step = max(min(BLOCK, max(CELLS // total, isqrt(CELLS // int(largest)))), 1)
        self._last: tuple[int, _Block] | None = None

    def __repr__(self) -> str:
        return f"Pairs(of {self._vectors.length:,} images; list(pairs[:100]) shows the first)"

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | Sequence[Pair]:
        places = range(len(self))[index]
        return Chosen(self, places) if isinstance(places, range) else next(self.at(range(places, places + 1)))

    def __iter__(self) -> Iterator[Pair]:
        for row, image in enumerate(self._images.tolist()):
            others, similarities = self._row(row)
            for other, similarity in zip(others.tolist(), similarities.tolist(), strict=True):
                yield Pair(image, other, similarity)

    def at(self, places: range) -> Iterator[Pair]:
        """The pairs at ``places``, in that order."""
        start = stop = image = 0
        for place in places:
            if not start <= place < stop:
                row = int(np.searchsorted(self._ends, place, side="right"))
                image, stop = int(self._images[row]), int(self._ends[row])
                others, similarities = self._row(row)
                start = stop - len(others)
            yield Pair(image, int(others[place - start]), float(similarities[place - start]))

    @cached_property
    def _ends(self) -> Numbers:
        """How many pairs the linked images up to each one are the first of, ``(linked images,)``."""
        counts = np.zeros(len(self._images), dtype=np.int64)

        def count(start: int) -> None:
            counts[start : start + self._step] = self._block(start).counts()

        with single_blas():
            for_each(count, range(0, len(counts), self._step))
        return np.cumsum(counts)

    def _row(self, row: int) -> tuple[Numbers, Doubles]:
        """The images that come second to a linked one, and the similarities."""
        start = row - row % self._step
        if self._last is None or self._last[0] != start:
            self._last = start, self._block(start)
        others, distances = self._last[1].after(row - start)
        return others, (DECIMALS - distances) / DECIMALS

    def _block(self, start: int) -> _Block:
        """Some linked images from ``start`` on beside all that are linked with any of their groups."""
        part = slice(start, start + self._step)
        pool = np.isin(self._group, self._group[part])
        rows, of = np.unique(self._class[part], return_inverse=True)
        columns, other = np.unique(self._class[pool], return_inverse=True)
        distances = np.empty((len(rows), len(columns)), dtype=np.int32)
        for left in range(0, len(columns), ROWS):
            some = slice(left, left + ROWS)
            distances[:, some] = self._vectors.distances(self._example[rows], self._example[columns[some]])
        # An approximate search may have left two groups apart that a link connects, and removal went by that.
        strangers = self._class_group[rows][:, None] != self._class_group[columns]
        linked = (distances <= self._limit) & ~strangers
        images, pooled = self._images[part], self._images[pool]
        return _Block(images=images, of=of, pool=pooled, other=other, distances=distances, linked=linked)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """``images`` of the classes ``of``, and the ``pool`` of images, of the classes ``other``, to compare them with.

    ``distances`` and ``linked`` are ``(classes, other classes)``.
    """

    images: Numbers
    of: Numbers
    pool: Numbers
    other: Numbers
    distances: npt.NDArray[np.int32]
    linked: npt.NDArray[np.bool_]

    def counts(self) -> Numbers:
        """With how many later images each one is linked."""
        counts = np.empty(len(self.images), dtype=np.int64)
        later = np.searchsorted(self.pool, self.images, side="right")
        for number, linked in enumerate(self.linked):
            mine = self.of == number
            before = np.concatenate([[0], np.cumsum(linked[self.other])])
            counts[mine] = before[-1] - before[later[mine]]
        return counts

    def after(self, place: int) -> tuple[Numbers, npt.NDArray[np.int32]]:
        """The later images that one is linked with, and the distances."""
        later = int(np.searchsorted(self.pool, self.images[place], side="right"))
        number, other = self.of[place], self.other[later:]
        linked = self.linked[number][other]
        return self.pool[later:][linked], self.distances[number][other[linked]]


@dataclass(frozen=True, repr=False)
class Chosen(Sequence[Pair]):
    """Some of the pairs, found when asked for too."""

    pairs: Pairs
    places: range

    def __repr__(self) -> str:
        return f"{len(self.places):,} of {self.pairs!r}"

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | Sequence[Pair]:
        places = self.places[index]
        return Chosen(self.pairs, places) if isinstance(places, range) else self.pairs[places]

    def __iter__(self) -> Iterator[Pair]:
        return self.pairs.at(self.places)
