"""The search for pairs: cheap float32 products find those that can matter, exact arithmetic settles them."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

import numpy as np
import numpy.typing as npt

from clipsieve.core.layout import Mask
from clipsieve.dedup.neighbours import Neighbours
from clipsieve.dedup.result import Numbers
from clipsieve.dedup.vectors import DECIMALS, Floats, UnitVectors

BLOCK = 1024
"""Rows and columns compared at once: 4 MB of products, which stay in the processor's cache."""

STRIP = 16 * BLOCK
"""Columns that a block of rows is screened against before the pairs that are left are weighed together."""

SOME = 128
"""Rows of a block that are settled at once when all their pairs may matter."""

QUEUE = 2**17
"""Pairs that wait to be settled together: most are overtaken by nearer ones by then."""

CROWDED = 128
"""With more than one pair in so many to weigh, a whole block is compared at once."""


class Search:
    """Compares classes and tells ``found`` of every pair of them that is a nearest one or a link, from any thread.

    ``low`` ``(classes,)`` is a cosine that the nearest of each class has at least. A pair matters if it can reach
    that of either, or if it can be a link between classes that are not connected yet. What other threads find
    meanwhile only raises ``low`` and connects classes, so an old value costs time and never a pair.
    """

    def __init__(self, vectors: UnitVectors, found: Neighbours) -> None:
        self.vectors, self.found = vectors, found
        self.rows, self.exclusion_group = found.classes.first, found.classes.exclusion_group
        self.low: Floats = np.full(len(self.rows), -1 - vectors.margin, dtype=np.float32)
        # Nothing is nearer than an identical image, and of the earlier data set nothing is asked: these come last.
        self.low[found.classes.mixed] = 2
        self.low[found.classes.wanted :] = 3
        self.margin = np.float32(vectors.margin)
        self.link = np.float32(1 - (found.limit + 0.5) / DECIMALS - vectors.margin)
        # A product misses its cosine by the margin, and either cosine half a decimal where it is rounded.
        self.slack = np.float32(vectors.margin + 1 / DECIMALS)
        self.unsettled: list[tuple[Numbers, Numbers, Floats]] = []
        self.waiting = 0
        self.lock = Lock()

    def ours(self, group: Numbers) -> int:
        """How many of ``group`` have an image of the input; ``blocks`` expects them before the others."""
        return int(np.count_nonzero(group < self.found.classes.wanted))

    def compare(self, left: Numbers, right: Numbers) -> None:
        """Every class of ``left`` with every class of ``right``, by their vectors."""
        cosines = self.vectors.unit(self.rows[left]) @ self.vectors.unit(self.rows[right]).T
        same = self.exclusion_group[left][:, None] == self.exclusion_group[right]
        cosines[same] = -3
        with self.lock:
            self._raise(left, cosines.max(axis=1))
            self._raise(right, cosines.max(axis=0))
        matters = self._matters(cosines, left[:, None], right)
        matters &= ~same
        if np.count_nonzero(matters) * CROWDED > matters.size:
            self._settle_all(left, right, matters)
        else:
            a, b = np.divmod(places(matters), len(right))
            self._put(left[a], right[b], cosines[a, b])

    def screen(self, left: Numbers, right: Numbers, bounds: Floats) -> None:
        """Like ``compare``, by sketches of all classes, ``(classes, few)``; only pairs that these let through go on."""
        near = [(left[:0], right[:0])]
        mine = bounds[left]
        for start in range(0, len(right), BLOCK):
            columns = right[start : start + BLOCK]
            cosines = mine @ bounds[columns].T
            cut = np.minimum(self.low[left], self.low[columns].min()) - self.slack
            reach = cosines >= np.minimum(cut, self.link)[:, None]
            if np.count_nonzero(reach) * CROWDED > reach.size:
                self.compare(left[reach.any(axis=1)], columns[reach.any(axis=0)])
            else:
                a, b = np.divmod(places(reach), len(columns))
                near.append((left[a], columns[b]))
        self._weigh(*(np.concatenate(column) for column in zip(*near, strict=True)))

    def finish(self) -> None:
        """Settles what still waits."""
        with self.lock:
            waiting, self.unsettled, self.waiting = self.unsettled, [], 0
        if waiting:
            self._settle(*(np.concatenate(column) for column in zip(*waiting, strict=True)))

    def _weigh(self, left: Numbers, right: Numbers) -> None:
        """Of the pairs that their sketches let through, keeps those that matter by their own product."""
        allowed = self.exclusion_group[left] != self.exclusion_group[right]
        left, right = left[allowed], right[allowed]
        cosines = self.vectors.products(self.rows[left], self.rows[right])
        with self.lock:
            self._raise(left, cosines)
            self._raise(right, cosines)
        matters = self._matters(cosines, left, right)
        self._put(left[matters], right[matters], cosines[matters])

    def _put(self, left: Numbers, right: Numbers, cosines: Floats) -> None:
        with self.lock:
            self.unsettled.append((left, right, cosines))
            self.waiting += len(left)
            if self.waiting < QUEUE:
                return
        self.finish()

    def _settle(self, left: Numbers, right: Numbers, cosines: Floats) -> None:
        """Offers the pairs that matter still, with their exact distances."""
        matters = self._matters(cosines, left, right)
        left, right = left[matters], right[matters]
        distances = self.vectors.pair_distances(self.rows[left], self.rows[right])
        with self.lock:
            self.found.offer(left, right, distances)

    def _settle_all(self, left: Numbers, right: Numbers, matters: Mask) -> None:
        """Like ``_settle`` where so many pairs matter that they are computed as a block, some rows at a time."""
        for start in range(0, len(left), SOME):
            some = left[start : start + SOME]
            a, b = np.nonzero(matters[start : start + SOME])
            distances = self.vectors.distances(self.rows[some], self.rows[right])[a, b]
            with self.lock:
                self.found.offer(some[a], right[b], distances)

    def _matters(self, cosines: Floats, left: Numbers, right: Numbers) -> Mask:
        matters: Mask = cosines >= self.low[left] - self.slack
        matters |= cosines >= self.low[right] - self.slack
        parent = self.found.components.parent
        matters |= (cosines >= self.link) & (parent[left] != parent[right])
        return matters

    def _raise(self, classes: Numbers, cosines: Floats) -> None:
        np.maximum.at(self.low, classes, cosines - self.margin)


def places(mask: Mask) -> Numbers:
    """``np.flatnonzero``, several times quicker where little is set: eight at a time."""
    flat: npt.NDArray[np.bool_] = np.ascontiguousarray(mask).reshape(-1)
    whole = len(flat) // 8 * 8
    words = np.flatnonzero(flat[:whole].view(np.uint64))
    word, bit = np.nonzero(flat[:whole].reshape(-1, 8)[words])
    return np.concatenate([words[word] * 8 + bit, whole + np.flatnonzero(flat[whole:])])


def blocks(total: int, ours: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Every two places below ``total``, one of them below ``ours``: blocks of rows, each with ``width`` columns."""
    for i in range(0, ours, BLOCK):
        for j in range(i, total, width):
            yield slice(i, i + BLOCK), slice(j, j + width)
