"""Identical images as one: what is equal is compared once, however often it occurs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipsieve.core.layout import Mask
from clipsieve.dedup.preference import Preference
from clipsieve.dedup.result import Numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """Classes of identical images, numbered so that those with an image of the input come first.

    ``of`` ``(images,)`` is an image's class, -1 where it is passed over. ``first`` ``(classes,)`` is the image that
    comes first in a class, ``second`` the first one of another unit, -1 where all are of one unit. Two classes of one
    ``exclusion_group`` are never compared: all their images are of one unit. ``wanted`` is the number of classes with
    an image of the input.
    """

    of: Numbers
    first: Numbers
    second: Numbers
    exclusion_group: Numbers
    wanted: int

    @classmethod
    def build(cls, keys: Numbers, preference: Preference) -> Classes:
        """Images with equal ``keys`` ``(images,)`` are identical; those with a key of -1 are passed over."""
        rank, unit = preference.rank, preference.unit
        members = np.argsort(rank)
        members = members[keys[members] >= 0]
        members = members[np.argsort(keys[members], kind="stable")]
        begins = np.flatnonzero(np.diff(keys[members], prepend=-1))
        sizes = np.diff(begins, append=len(members))

        first = members[begins]
        place = np.arange(len(members))
        other = np.where(unit[members] != np.repeat(unit[first], sizes), place, len(members))
        other = np.minimum.reduceat(other, begins) if len(begins) else other
        second = np.append(members, -1)[other]
        ours = np.maximum.reduceat(members < preference.n, begins) if len(begins) else np.zeros(0, dtype=bool)

        order = np.lexsort((rank[first], ~ours))
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        of = np.full(len(keys), -1, dtype=np.int64)
        of[members] = np.repeat(number, sizes)
        first, second = first[order], second[order]
        return cls(
            of=of,
            first=first,
            second=second,
            # Whose images are of several units is excluded from nothing: it is a group of its own.
            exclusion_group=np.where(second < 0, unit[first], -1 - np.arange(len(first))),
            wanted=int(np.count_nonzero(ours)),
        )

    def __len__(self) -> int:
        return len(self.first)

    @property
    def mixed(self) -> Mask:
        """Classes that are linked within themselves: their images are of several units."""
        return self.second >= 0

    def partner(self, units: Numbers, others: Numbers, preference: Preference) -> Numbers:
        """The first image of each class of ``others`` that is not of the unit beside it, -1 for none."""
        first = self.first[others]
        return np.where(preference.unit[first] == units, self.second[others], first)
