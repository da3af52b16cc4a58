"""What a search for pairs leaves behind: the nearest other image of each class, and what links connect."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from clipsieve.dedup.classes import Classes
from clipsieve.dedup.components import Components
from clipsieve.dedup.preference import Preference
from clipsieve.dedup.result import Numbers

DistanceFunction: TypeAlias = Callable[[Numbers, Numbers], Numbers]
"""How unlike classes are: ``(a,)`` and ``(b,)`` classes to ``(a, b)`` whole numbers, 0 for identical ones."""

NONE = np.iinfo(np.int64).max


class Neighbours:
    """Takes pairs of classes as they are found; pairs are never kept.

    A class's best partner is one number, ``key = distance * images + rank``, so that the smallest key is the most
    similar image, and of equally similar ones the earliest.
    """

    def __init__(self, classes: Classes, preference: Preference, limit: int) -> None:
        self.classes = classes
        self.preference = preference
        self.limit = limit
        self.key: Numbers = np.full(len(classes), NONE)
        # Its images have each other: nothing is nearer than an identical one.
        self.key[classes.mixed] = -1
        self.components = Components(len(classes))

    def offer(self, left: Numbers, right: Numbers, distances: Numbers) -> None:
        """Pairs of different classes with their distances, ``(pairs,)`` each; a pair may come more than once."""
        allowed = self.classes.exclusion_group[left] != self.classes.exclusion_group[right]
        # Of two images of the earlier data set nothing is asked, whether or not a search came across them.
        allowed &= np.minimum(left, right) < self.classes.wanted
        left, right, distances = left[allowed], right[allowed], distances[allowed]
        for one, other in ((left, right), (right, left)):
            partner = self.classes.partner(self.classes.exclusion_group[one], other, self.preference)
            np.minimum.at(self.key, one, distances * len(self.preference.rank) + self.preference.rank[partner])
        linked = distances <= self.limit
        self.components.connect(left[linked], right[linked])

    def take(self, classes: Numbers, distances: Numbers, ranks: Numbers) -> None:
        """The nearest image of some ``classes`` among others that somebody else has looked at, by distance and rank."""
        np.minimum.at(self.key, classes, distances * len(self.preference.rank) + ranks)

    def nearest(self) -> tuple[Numbers, Numbers]:
        """The nearest image of each image of the input and the distance between them, ``(n,)``; -1 for none."""
        classes, preference = self.classes, self.preference
        by_rank = np.argsort(preference.rank)
        of = classes.of[: preference.n]
        alone = np.flatnonzero(of >= 0)
        nearest = np.full(preference.n, -1, dtype=np.int64)
        distance = nearest.copy()
        twins = alone[classes.mixed[of[alone]]]
        nearest[twins] = classes.partner(preference.unit[twins], of[twins], preference)
        distance[twins] = 0
        alone = alone[~classes.mixed[of[alone]]]
        alone = alone[self.key[of[alone]] != NONE]
        key = self.key[of[alone]]
        distance[alone], nearest[alone] = key // len(by_rank), by_rank[key % len(by_rank)]
        return nearest, distance
