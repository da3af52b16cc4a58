"""The histogram of a score as a report draws it: what was kept, what its own rules dropped, what others did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.core.decide import Unit
from clipsieve.core.layout import Mask
from clipsieve.report.thresholds import Threshold
from clipsieve.report.values import Values

BINS = 40
FEW = 500
"""Up to so many values all are drawn; of more those between the outer percentiles."""

OUTER = (1, 99)
WIDE = 100
"""Values of which the high ones are so many times the low ones are drawn over a logarithmic axis."""

STRETCH = 3
"""A threshold outside the values is drawn where the axis does not grow more than so many times."""

MOST = 0.5
"""A single value that more than this share of all have is told apart: beside its bar no other could be seen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """How many values lie between ``edges`` ``(bins + 1,)``: ``kept``, dropped by ``own`` rules, and ``others``.

    ``edges`` are empty where nothing is left to be drawn. ``below`` and ``above`` count the values left and right of
    them, ``single`` is the value that most have, with their number, and stands in none of the others. ``marks`` are
    the thresholds within the edges, ``hidden`` those without.
    """

    name: str
    unit: Unit
    edges: npt.NDArray[np.float64]
    kept: npt.NDArray[np.int64]
    own: npt.NDArray[np.int64]
    others: npt.NDArray[np.int64]
    logarithmic: bool
    below: int
    above: int
    single: tuple[float, int] | None
    marks: Sequence[Threshold]
    hidden: Sequence[Threshold]


def histogram(of: Values, kept: Mask, own: Mask, thresholds: Sequence[Threshold]) -> Histogram:
    """Of the values that are finite; ``kept`` and ``own`` ``(n,)`` mark what was kept and what own rules dropped."""
    drawn = np.isfinite(of.values)
    single = _single(of.values[drawn])
    if single is not None:
        drawn = drawn & (of.values != single[0])
    values, kept, own = of.values[drawn], kept[drawn], own[drawn]
    edges, logarithmic = _edges(values, [at.bound for at in thresholds])
    inside = [bool(len(edges)) and edges[0] <= at.bound <= edges[-1] for at in thresholds]

    def counted(some: Mask) -> npt.NDArray[np.int64]:
        return np.histogram(values[some], edges)[0] if len(edges) else np.zeros(0, np.int64)

    return Histogram(
        name=of.name,
        unit=of.unit,
        edges=edges,
        kept=counted(kept),
        own=counted(own & ~kept),
        others=counted(~own & ~kept),
        logarithmic=logarithmic,
        below=int((values < edges[0]).sum()) if len(edges) else 0,
        above=int((values > edges[-1]).sum()) if len(edges) else 0,
        single=single,
        marks=[at for at, here in zip(thresholds, inside, strict=True) if here],
        hidden=[at for at, here in zip(thresholds, inside, strict=True) if not here],
    )


def _single(values: npt.NDArray[np.float64]) -> tuple[float, int] | None:
    """The value that most of ``values`` have, which can only be their median, with their number."""
    if not len(values):
        return None
    middle = float(np.partition(values, len(values) // 2)[len(values) // 2])
    equal = int((values == middle).sum())
    return (middle, equal) if equal > MOST * len(values) else None


def _edges(values: npt.NDArray[np.float64], bounds: Sequence[float]) -> tuple[npt.NDArray[np.float64], bool]:
    """Where the bins begin and end, and whether they grow with the values."""
    if not len(values):
        return np.zeros(0), False
    low, high = (float(end) for end in (np.percentile(values, OUTER) if len(values) > FEW else _ends(values)))
    logarithmic = low > 0 and high >= WIDE * low
    if logarithmic:
        low, high = _stretched(math.log10(low), math.log10(high), [math.log10(b) for b in bounds if b > 0])
        return np.logspace(low, high, BINS + 1), True
    low, high = _stretched(low, high, bounds)
    if (values == np.round(values)).all():
        # Bins of equally many whole numbers, since others would look like a comb.
        step = max(math.ceil((high - low + 1) / BINS), 1)
        return np.arange(math.floor(low) - 0.5, math.ceil(high) + step + 0.5, step), False
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return np.linspace(low, high, BINS + 1), False


def _ends(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _stretched(low: float, high: float, bounds: Sequence[float]) -> tuple[float, float]:
    """The ends moved out so that thresholds are between them, unless the values would shrink to nothing."""
    most = STRETCH * (high - low)
    for bound in sorted(bounds, key=lambda bound: max(low - bound, bound - high)):
        if max(high, bound) - min(low, bound) <= most:
            margin = 0.03 * (max(high, bound) - min(low, bound))
            low, high = (bound - margin if bound < low else low), (bound + margin if bound > high else high)
    return low, high
