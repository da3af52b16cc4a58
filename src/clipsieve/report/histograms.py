"""The histogram of a score as a report draws it: what was kept, what its own rules dropped, what others did."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

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


class Mark(NamedTuple):
    """A threshold, and the ``place`` on the axis that parts what it drops from what it lets pass."""

    at: Threshold
    place: float


class Single(NamedTuple):
    """A value that most have, the ``number`` of those, and how many of them were kept."""

    value: float
    number: int
    kept: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """How many values lie between ``edges`` ``(bins + 1,)``: ``kept``, dropped by ``own`` rules, and ``others``.

    A bin holds its lower edge, not its upper. ``edges`` are empty where nothing is left to be drawn. ``below`` and
    ``above`` count the values left and right of them, ``single`` is the value that most have, which stands in none of
    the others. ``marks`` are the thresholds within the edges, each on one of them, ``hidden`` those without.
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
    single: Single | None
    marks: Sequence[Mark]
    hidden: Sequence[Threshold]


def histogram(of: Values, kept: Mask, own: Mask, thresholds: Sequence[Threshold]) -> Histogram:
    """Of the values that are finite; ``kept`` and ``own`` ``(n,)`` mark what was kept and what own rules dropped."""
    drawn = np.isfinite(of.values)
    single = _single(of.values[drawn], kept[drawn])
    if single is not None:
        drawn = drawn & (of.values != single.value)
    values, kept, own = of.values[drawn], kept[drawn], own[drawn]
    axis = _axis(values)
    edges = np.zeros(0) if axis is None else _edges(axis, thresholds)
    cuts = [float(np.mean(_cuts(at, axis is not None and axis.whole))) for at in thresholds]
    inside = [bool(len(edges)) and edges[0] <= cut <= edges[-1] for cut in cuts]

    def counted(some: Mask) -> npt.NDArray[np.int64]:
        return np.histogram(values[some], edges)[0] if len(edges) else np.zeros(0, np.int64)

    return Histogram(
        name=of.name,
        unit=of.unit,
        edges=edges,
        kept=counted(kept),
        own=counted(own & ~kept),
        others=counted(~own & ~kept),
        logarithmic=axis is not None and axis.logarithmic,
        below=int((values < edges[0]).sum()) if len(edges) else 0,
        above=int((values > edges[-1]).sum()) if len(edges) else 0,
        single=single,
        marks=[Mark(at, cut) for at, cut, here in zip(thresholds, cuts, inside, strict=True) if here],
        hidden=[at for at, here in zip(thresholds, inside, strict=True) if not here],
    )


def _single(values: npt.NDArray[np.float64], kept: Mask) -> Single | None:
    """The value that most of ``values`` have, which can only be their median."""
    if not len(values):
        return None
    middle = float(np.partition(values, len(values) // 2)[len(values) // 2])
    equal = values == middle
    number = int(equal.sum())
    return Single(middle, number, int((equal & kept).sum())) if number > MOST * len(values) else None


class _Axis(NamedTuple):
    """The ends of what is drawn, and whether it is drawn by magnitude or, of whole numbers, number by number."""

    low: float
    high: float
    logarithmic: bool
    whole: bool


def _axis(values: npt.NDArray[np.float64]) -> _Axis | None:
    """The axis for ``values``, None for none."""
    if not len(values):
        return None
    ends = np.percentile(values, OUTER) if len(values) > FEW else (values.min(), values.max())
    low, high = (float(end) for end in ends)
    logarithmic = low > 0 and high >= WIDE * low
    return _Axis(low, high, logarithmic, not logarithmic and bool((values == np.round(values)).all()))


def _cuts(at: Threshold, whole: bool) -> tuple[float, ...]:
    """Where bins have to part so that none holds both what ``at`` drops and what it lets pass."""
    if whole:
        below, above = math.ceil(at.bound) - 0.5, math.floor(at.bound) + 0.5
        return {">=": (below,), "<": (below,), ">": (above,), "<=": (above,)}.get(at.op, (below, above))
    return (math.nextafter(at.bound, math.inf) if at.op in (">", "<=") else at.bound,)


def _edges(axis: _Axis, thresholds: Sequence[Threshold]) -> npt.NDArray[np.float64]:
    """Where the bins begin and end."""
    low, high, logarithmic, whole = axis
    bounds = [at.bound for at in thresholds]
    cuts = sorted({cut for at in thresholds for cut in _cuts(at, whole)})
    if logarithmic:
        ends = _stretched(math.log10(low), math.log10(high), [math.log10(b) for b in bounds if b > 0])
        return _parted(min(low, 10 ** ends[0]), max(high, 10 ** ends[1]), cuts, np.geomspace)
    low, high = _stretched(low, high, bounds)
    if whole:
        return _whole_edges(low, high, cuts)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return _parted(low, high, cuts, np.linspace)


def _parted(
    low: float, high: float, cuts: Sequence[float], spaced: Callable[[float, float, int], npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """About ``BINS`` bins, nearly equal on the axis, of which some part at ``cuts``."""
    ends = [low, *(cut for cut in cuts if low < cut < high), high]
    places = np.interp(ends, spaced(low, high, BINS * 100 + 1), np.arange(BINS * 100 + 1) / 100)
    numbers = np.maximum(np.diff(places).round().astype(int), 1).tolist()
    parts = [spaced(*pair, number + 1)[:-1] for pair, number in zip(pairwise(ends), numbers, strict=True)]
    return np.array([*np.concatenate(parts), high])


def _whole_edges(low: float, high: float, cuts: Sequence[float]) -> npt.NDArray[np.float64]:
    """Bins of equally many whole numbers, since others would look like a comb; between two cuts nearly as many."""
    low, high = math.floor(low) - 0.5, math.ceil(high) + 0.5
    step = max(math.ceil((high - low) / BINS), 1)
    cuts = [cut for cut in cuts if low < cut < high]
    first, last = (cuts[0], cuts[-1]) if cuts else (low, low)
    parts = [np.floor(np.linspace(a, b, max(round((b - a) / step), 1) + 1)[:-1]) + 0.5 for a, b in pairwise(cuts)]
    before = first - step * np.arange(math.ceil((first - low) / step), 0, -1)
    after = last + step * np.arange(max(math.ceil((high - last) / step), 1) + 1)
    return np.concatenate([before, *parts, after])


def _stretched(low: float, high: float, bounds: Sequence[float]) -> tuple[float, float]:
    """The ends moved out so that thresholds are between them, unless the values would shrink to nothing."""
    most = STRETCH * (high - low)
    for bound in sorted(bounds, key=lambda bound: max(low - bound, bound - high)):
        if max(high, bound) - min(low, bound) <= most:
            margin = 0.03 * (max(high, bound) - min(low, bound))
            low, high = (bound - margin if bound <= low else low), (bound + margin if bound >= high else high)
    return low, high
