"""The order of preference: which image comes before which, and which belong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.dedup.result import Numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Preference:
    """Ranks of ``n`` images followed by ``others`` of an earlier data set; the others come before everything.

    ``rank`` ``(n + others,)`` is each image's place. ``unit`` ``(n + others,)`` is the rank of the first image of its
    unit: equal within a unit, and lower for an earlier one.
    """

    n: int
    rank: Numbers
    unit: Numbers

    @classmethod
    def of(cls, n: int, others: int, order: npt.ArrayLike | None, units: npt.ArrayLike | None) -> Preference:
        """Raises ``ValueError`` unless ``order`` is a permutation in which a unit's images are neighbours."""
        places = np.arange(n, dtype=np.int64) if order is None else _permutation(order, n)
        rank = np.empty(n + others, dtype=np.int64)
        rank[n:] = np.arange(others)
        rank[places] = others + np.arange(n)
        unit = rank.copy()
        if units is not None:
            unit[places] = others + _first_of_run(_numbers(units, n, "units")[places])
        return cls(n=n, rank=rank, unit=unit)


def _numbers(values: npt.ArrayLike, n: int, name: str) -> Numbers:
    array = np.asarray(values)
    if array.shape != (n,) or (n and array.dtype.kind not in "iu"):
        raise ValueError(f"{name} needs {n} whole numbers, one an image, got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def _permutation(order: npt.ArrayLike, n: int) -> Numbers:
    places = _numbers(order, n, "order")
    if not np.array_equal(np.sort(places), np.arange(n)):
        raise ValueError(f"order has to name each image from 0 to {n - 1} once")
    return places


def _first_of_run(units: Numbers) -> Numbers:
    """For each image in order of preference, the place of the first of its unit."""
    begins = np.ones(len(units), dtype=bool)
    begins[1:] = units[1:] != units[:-1]
    if np.count_nonzero(begins) != len(np.unique(units)):
        raise ValueError("the images of a unit have to be neighbours in order")
    return np.maximum.accumulate(np.where(begins, np.arange(len(units)), 0))
