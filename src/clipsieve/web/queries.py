"""Which images a question means, in which order, and how scores lie: numpy over the rows of a ledger, and nothing else.

Every function takes whole columns ``(rows,)`` and is quick at a million rows; what does not depend on the rules, such
as the order of a score, is made once and kept by who asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.core.layout import Mask
from clipsieve.core.replay import FAILED, KEPT, UNKNOWN

Numbers: TypeAlias = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.int64]
Standings: TypeAlias = npt.NDArray[np.uint8]
Shown: TypeAlias = Literal["all", "kept", "duplicate", "dropped", "failed", "unknown", "changed"]

BINS = 60
"""Bars of a histogram: about six pixels each in its panel."""

SKEWED = 50
"""From the 99th percentile at so many times the 1st on, a histogram of positive values is logarithmic."""

NOWHERE = BINS
"""The bin of a row without a value."""


class Standing(IntEnum):
    """What becomes of an image; of a ``DUPLICATE`` the rules keep it, and the run's search for near duplicates took it
    out."""

    KEPT = 0
    DUPLICATE = 1
    DROPPED = 2
    FAILED = 3
    UNKNOWN = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """What the run itself made of the rows: those that it ``kept``, and those that it took out as ``duplicate``."""

    is_image: Mask
    kept: Mask
    duplicate: Mask


def standings(out_by: npt.NDArray[np.int16], past: Past) -> Standings:
    """The standing of each row, from the number of the rule that drops it."""
    found: Standings = np.full(len(out_by), Standing.DROPPED, dtype=np.uint8)
    kept = out_by == KEPT
    found[kept] = Standing.KEPT
    found[kept & past.duplicate] = Standing.DUPLICATE
    found[out_by == FAILED] = Standing.FAILED
    found[out_by == UNKNOWN] = Standing.UNKNOWN
    return found


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Images by standing, and against those that the run kept: how many come in, go out, or are now unknown.

    ``kept`` is what the run kept, and ``gained``, less ``lost`` and ``doubted``.
    """

    kept: int
    duplicate: int
    dropped: int
    failed: int
    unknown: int
    gained: int
    lost: int
    doubted: int


def counts(found: Standings, past: Past) -> Counts:
    """How many images stand where."""
    of = np.bincount(found[past.is_image], minlength=len(Standing)).tolist()
    moved = past.is_image & changed(found, past.kept)
    lost = int((moved & past.kept).sum())
    return Counts(
        kept=of[Standing.KEPT], duplicate=of[Standing.DUPLICATE], dropped=of[Standing.DROPPED],
        failed=of[Standing.FAILED], unknown=of[Standing.UNKNOWN], gained=int(moved.sum()) - lost, lost=lost,
        doubted=int((past.is_image & past.kept & (found == Standing.UNKNOWN)).sum()),
    )  # fmt: skip


def changed(found: Standings, kept: Mask) -> Mask:
    """Which rows are kept and were not, or the other way round; what is unknown neither comes nor goes."""
    return np.asarray((found != Standing.UNKNOWN) & ((found == Standing.KEPT) != kept), dtype=bool)


def chosen(found: Standings, past: Past, show: Shown) -> Mask:
    """The images of a tab of the gallery."""
    if show == "all":
        return past.is_image
    if show == "changed":
        return past.is_image & changed(found, past.kept)
    return np.asarray(past.is_image & (found == Standing[show.upper()]), dtype=bool)


def ascending(values: Numbers) -> Rows:
    """All rows that have a value, the lowest first, equals by row."""
    present = np.flatnonzero(~np.isnan(values))
    return present[np.argsort(values[present], kind="stable")]


def shuffled(rows: int) -> Rows:
    """All rows in an order that says nothing, the same every time."""
    return np.random.default_rng(0).permutation(rows)


def ordered(mask: Mask, order: Rows, *, descending: bool = False) -> Rows:
    """The rows of ``mask`` in ``order``; those that are not in it, such as rows without a value, come last."""
    found = order[mask[order]]
    if descending:
        found = found[::-1]
    if len(found) == np.count_nonzero(mask):
        return found
    rest = mask.copy()
    rest[found] = False
    return np.concatenate([found, np.flatnonzero(rest)])


def nearest(mask: Mask, order: Rows, values: Numbers, bounds: Sequence[float]) -> Rows:
    """The rows of ``mask`` that have a value, the nearest to any of ``bounds`` first; the others come last.

    ``order`` is that of ``ascending``: in it distances fall and rise, which a stable sort takes in one go.
    """
    found = ordered(mask, order)
    with_value = int(np.count_nonzero(mask[order]))
    there = values[found[:with_value]]
    distance = np.min([np.abs(there - bound) for bound in bounds], axis=0)
    return np.concatenate([found[:with_value][np.argsort(distance, kind="stable")], found[with_value:]])


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """How the values of the images lie: ``edges`` ``(BINS + 1,)``, ``heights`` ``(BINS,)``.

    ``place`` ``(rows,)`` is the bin of each row, ``NOWHERE`` for what is no image or has no value, so that those of
    some rows are counted without looking at a value again. ``percentiles`` are the 1st, 5th, 50th, 95th and 99th.
    """

    scale: Literal["linear", "log"]
    edges: Numbers
    heights: Rows
    place: npt.NDArray[np.uint8]
    percentiles: tuple[float, ...]

    def of(self, mask: Mask) -> list[int]:
        """The heights of the rows of ``mask``."""
        heights: list[int] = np.bincount(self.place[mask], minlength=BINS + 1)[:BINS].tolist()
        return heights


def histogram(values: Numbers, is_image: Mask) -> Histogram | None:
    """The histogram of the images' values; None when none has any."""
    rows = np.flatnonzero(is_image & np.isfinite(values))
    if not len(rows):
        return None
    there = values[rows]
    low, high = float(there.min()), float(there.max())
    percentiles = np.percentile(there, (1, 5, 50, 95, 99))
    log = low > 0 and percentiles[4] > SKEWED * percentiles[0]
    if low == high:
        low, high = low - 0.5, high + 0.5
        log = False
    ends = np.log((low, high)) if log else np.array((low, high))
    inner = np.log(there) if log else there
    bins = np.clip((inner - ends[0]) / (ends[1] - ends[0]) * BINS, 0, BINS - 1)
    place = np.full(len(values), NOWHERE, dtype=np.uint8)
    place[rows] = bins.astype(np.uint8)
    edges = np.linspace(ends[0], ends[1], BINS + 1)
    edges = np.exp(edges) if log else edges
    edges[[0, -1]] = low, high
    return Histogram(
        scale="log" if log else "linear",
        edges=edges,
        heights=np.bincount(place, minlength=BINS + 1)[:BINS],
        place=place,
        percentiles=tuple(percentiles.tolist()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """Groups of near duplicates: ``rows`` of all of them, one group after the other, each up to its ``ends``.

    The one that stays comes first in its group, and large groups come first.
    """

    rows: Rows
    ends: Rows

    def page(self, offset: int, limit: int) -> Iterator[Rows]:
        """The rows of some groups."""
        starts = np.concatenate([[0], self.ends])
        for number in range(offset, min(offset + limit, len(self.ends))):
            yield self.rows[starts[number] : self.ends[number]]


def groups(group: Rows, stays: Mask) -> Groups:
    """The groups of two and more rows that share a number of ``group``; below 0 a row is in none."""
    rows = np.flatnonzero(group >= 0)
    _, index, sizes = np.unique(group[rows], return_inverse=True, return_counts=True)
    rows = rows[np.lexsort((rows, ~stays[rows], index, -sizes[index]))]
    sizes = -np.sort(-sizes)
    sizes = sizes[sizes > 1]
    ends = np.cumsum(sizes)
    return Groups(rows=rows[: int(sizes.sum())], ends=ends)
