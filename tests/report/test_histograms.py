"""What of a score is drawn, what is left out, and that nothing is left out without being told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clipsieve.core.rules import OPERATORS
from clipsieve.report.histograms import Histogram, histogram
from clipsieve.report.page.plots import drawn
from clipsieve.report.thresholds import Threshold
from clipsieve.report.values import Values


def values(*numbers: float) -> Values:
    return Values(
        name="blur", unit="image", values=np.array(numbers, dtype=np.float64), rows=np.arange(len(numbers)),
        others=None, skipped=0, why_skipped="",
    )  # fmt: skip


def of(*numbers: float, at: tuple[Any, ...] = (), kept_from: float = -math.inf) -> Histogram:
    found = values(*numbers)
    kept = found.values >= kept_from
    return histogram(found, kept, ~kept, [Threshold(*one) for one in at])


def told(found: Histogram) -> int:
    inside = sum(int(series.sum()) for series in (found.kept, found.own, found.others))
    return inside + found.below + found.above + (found.single.number if found.single else 0)


@pytest.mark.parametrize(
    "numbers",
    [
        [1.0],
        [0.0, 0.0, 0.0],
        [1.0, 2.0, math.nan, math.inf],
        list(np.exp(np.random.default_rng(0).normal(6, 2, 3000))),
        list(np.random.default_rng(0).poisson(9, 3000).astype(float)),
        [0.0] * 900 + list(np.linspace(0.001, 1, 100)),
        [-5e8, 5e8, 1e-9],
    ],
)
def test_every_finite_value_is_drawn_or_told(numbers: list[float]) -> None:
    found = of(*numbers, at=((">=", 1.0),), kept_from=1.0)
    assert told(found) == np.isfinite(numbers).sum()
    drawn(found)


def test_what_most_have_is_told_apart_from_the_others() -> None:
    found = of(0, 0, 0, 0.25, 0.5, kept_from=0.1)
    assert found.single == (0.0, 3, 0)
    assert found.kept.sum() == 2


def test_whole_numbers_have_bins_of_their_own() -> None:
    found = of(1, 2, 2, 3)
    assert found.edges.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert found.kept.tolist() == [1, 2, 1]


def test_values_of_many_magnitudes_are_drawn_over_a_logarithmic_axis() -> None:
    assert of(1.5, 20, 900).logarithmic
    assert not of(0, 20, 900).logarithmic
    assert not of(400, 500, 900).logarithmic


def test_a_near_threshold_widens_the_axis_and_a_far_one_is_told() -> None:
    found = of(1.5, 1.7, 2.5, at=((">=", 1.0), ("<=", 1e6)))
    assert (found.marks, found.hidden) == ([((">=", 1.0), 1.0)], [("<=", 1e6)])
    assert found.edges[0] < 1


WHOLE = [float(number) for number in range(1, 300)]
REAL = list(np.random.default_rng(0).normal(0.25, 0.05, 900).round(3))
WIDE = list(np.exp(np.random.default_rng(0).normal(6, 2, 900)).round())


@pytest.mark.parametrize("op", [">=", ">", "<=", "<"])
@pytest.mark.parametrize(
    ("numbers", "bound"),
    [(WHOLE, 128.0), (WHOLE, 128.5), (WHOLE, 1.0), (WHOLE, 299.0), ([1.0, 2.0, 2.0, 3.0], 2.0), ([7.0, 8.0], 8.0),
     (REAL, 0.25), (REAL, 0.2512), (REAL[:9], max(REAL[:9])), (REAL[:9], min(REAL[:9])), (WIDE, WIDE[0]), ([0.5], 0.5)],
)  # fmt: skip
def test_no_bar_crosses_a_threshold(numbers: list[float], bound: float, op: str) -> None:
    """What was kept lies on the one side of the line, what its rule dropped on the other."""
    found = values(*numbers)
    kept = OPERATORS[op](found.values, bound)
    # A second threshold, which all pass, must not shift the first.
    drawn_ = histogram(found, kept, ~kept, [Threshold(op, bound), Threshold(">=", min(numbers))])
    if drawn_.single:
        return
    place = drawn_.marks[0].place
    right = drawn_.edges[:-1] >= place
    kept_side = right if op in (">=", ">") else ~right
    assert place in drawn_.edges
    assert (drawn_.kept[~kept_side].sum(), drawn_.own[kept_side].sum()) == (0, 0)
    assert told(drawn_) == len(numbers)
    assert (np.diff(drawn_.edges) > 0).all()
    if not kept.all() and kept.any() and not drawn_.below + drawn_.above:
        assert (drawn_.kept[kept_side].sum(), drawn_.own[~kept_side].sum()) == (kept.sum(), (~kept).sum())


def test_the_line_between_whole_numbers_stands_between_their_bars() -> None:
    assert of(1, 2, 2, 3, at=((">=", 2.0),)).marks[0].place == 1.5
    assert of(1, 2, 2, 3, at=(("<=", 2.0),)).marks[0].place == 2.5
    assert of(1, 2, 2, 3, at=(("==", 2.0),)).marks[0].place == 2.0


def test_the_drawing_holds_numbers_and_classes_alone_and_is_the_same_each_time() -> None:
    found = of(*np.random.default_rng(0).normal(0.25, 0.05, 500), at=((">=", 0.2), ("<=", 0.4)), kept_from=0.2)
    svg = drawn(found)
    assert svg == drawn(found)
    assert "≥ 0.2" in svg
    assert "dropped by its own rules" in svg
    assert not any(word in svg for word in ("style", "href", "url(", "<script", "id="))
