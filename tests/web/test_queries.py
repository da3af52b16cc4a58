"""Orders, tabs and histograms over whole columns; each is held against plain Python on few rows, and runs on many."""

from __future__ import annotations

import numpy as np

from clipsieve.core.replay import BESIDE, FAILED, KEPT, UNKNOWN
from clipsieve.web import queries
from clipsieve.web.queries import BINS, NOWHERE, Past, Standing

NAN = float("nan")


def past(kept: list[int], duplicate: list[int] | None = None, is_image: list[int] | None = None) -> Past:
    count = len(kept)
    return Past(
        is_image=np.array(is_image or [1] * count, dtype=bool),
        kept=np.array(kept, dtype=bool),
        duplicate=np.array(duplicate or [0] * count, dtype=bool),
    )


def test_a_row_stands_where_the_rules_put_it_and_a_near_duplicate_stays_one() -> None:
    out_by = np.array([KEPT, KEPT, 0, 2, FAILED, BESIDE, UNKNOWN], dtype=np.int16)
    then = past([0, 0, 0, 1, 0, 0, 1], duplicate=[0, 1, 1, 0, 0, 0, 0])
    found = queries.standings(out_by, then)
    assert [Standing(one).name for one in found.tolist()] == [
        "KEPT", "DUPLICATE", "DROPPED", "DROPPED", "FAILED", "DROPPED", "UNKNOWN",
    ]  # fmt: skip
    counts = queries.counts(found, then)
    assert (counts.kept, counts.duplicate, counts.dropped, counts.failed, counts.unknown) == (1, 1, 3, 1, 1)
    # A near duplicate was not kept, whatever rule drops it now; what is unknown neither comes nor goes.
    assert (counts.gained, counts.lost, counts.doubted) == (1, 1, 1)
    assert counts.kept == then.kept.sum() + counts.gained - counts.lost - counts.doubted
    assert np.flatnonzero(queries.chosen(found, then, "changed")).tolist() == [0, 3]
    assert np.flatnonzero(queries.chosen(found, then, "dropped")).tolist() == [2, 3, 5]


def test_samples_without_images_are_counted_and_shown_nowhere() -> None:
    found = np.array([Standing.KEPT, Standing.KEPT, Standing.DROPPED], dtype=np.uint8)
    then = past([1, 0, 1], is_image=[1, 0, 0])
    assert queries.counts(found, then).kept == 1
    assert queries.counts(found, then).gained == queries.counts(found, then).lost == 0
    assert np.flatnonzero(queries.chosen(found, then, "all")).tolist() == [0]


def test_a_sort_puts_equals_by_row_and_rows_without_a_value_last() -> None:
    values = np.array([3.0, NAN, 1.0, 3.0, 2.0])
    order = queries.ascending(values)
    every = np.ones(5, dtype=bool)
    assert queries.ordered(every, order).tolist() == [2, 4, 0, 3, 1]
    assert queries.ordered(every, order, descending=True).tolist() == [3, 0, 4, 2, 1]
    assert queries.ordered(np.array([1, 1, 0, 0, 1], dtype=bool), order).tolist() == [4, 0, 1]


def test_near_the_threshold_means_near_any_of_its_bounds() -> None:
    values = np.array([0.0, 4.0, 9.0, NAN, 5.2, 11.0])
    order = queries.ascending(values)
    assert queries.nearest(np.ones(6, dtype=bool), order, values, [5.0]).tolist() == [4, 1, 2, 0, 5, 3]
    assert queries.nearest(np.ones(6, dtype=bool), order, values, [0.1, 10.0]).tolist() == [0, 2, 5, 1, 4, 3]


def test_a_histogram_counts_the_images_and_any_part_of_them() -> None:
    values = np.array([0.0, 1.0, 1.0, 3.0, NAN, 2.0])
    drawn = queries.histogram(values, np.array([1, 1, 1, 1, 1, 0], dtype=bool))
    assert drawn is not None
    assert (drawn.edges[0], drawn.edges[-1], drawn.scale) == (0.0, 3.0, "linear")
    assert drawn.heights.sum() == 4
    assert drawn.place[4] == drawn.place[5] == NOWHERE
    assert np.flatnonzero(drawn.of(np.array([1, 0, 1, 0, 1, 1], dtype=bool))).tolist() == [0, BINS // 3]


def test_a_histogram_of_equal_values_has_one_bar_and_of_none_there_is_none() -> None:
    drawn = queries.histogram(np.array([7.0, 7.0]), np.ones(2, dtype=bool))
    assert drawn is not None
    assert (drawn.edges[0], drawn.edges[-1], np.count_nonzero(drawn.heights)) == (6.5, 7.5, 1)
    assert queries.histogram(np.array([NAN, 1.0]), np.array([1, 0], dtype=bool)) is None


def test_values_far_apart_lie_on_a_logarithmic_scale() -> None:
    drawn = queries.histogram(np.array([1.0, 20.0, 150.0, 2000.0, 10_000.0]), np.ones(5, dtype=bool))
    assert drawn is not None
    assert drawn.scale == "log"
    assert np.flatnonzero(drawn.heights).tolist() == [0, 19, 32, 49, BINS - 1]


def test_groups_come_large_first_with_the_one_that_stays_in_front() -> None:
    group = np.array([0, -1, 0, 3, 3, 3, 9])
    stays = np.array([0, 1, 1, 0, 1, 0, 1], dtype=bool)
    found = queries.groups(group, stays)
    assert [rows.tolist() for rows in found.page(0, 10)] == [[4, 3, 5], [2, 0]]
    assert [rows.tolist() for rows in found.page(1, 1)] == [[2, 0]]
    assert list(queries.groups(np.array([-1, -1]), np.ones(2, dtype=bool)).page(0, 5)) == []


def test_a_million_rows_are_ordered_as_few_are() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1000, 1_000_000) / 1000.0
    values[rng.random(len(values)) < 0.1] = NAN
    mask = rng.random(len(values)) < 0.7
    order = queries.ascending(values)
    found = queries.nearest(mask, order, values, [0.25])
    assert sorted(found.tolist()) == np.flatnonzero(mask).tolist()
    distance = np.abs(values[found] - 0.25)
    present = int(np.count_nonzero(~np.isnan(distance)))
    assert np.all(np.diff(distance[:present]) >= 0)
    assert np.isnan(distance[present:]).all()
    drawn = queries.histogram(values, mask)
    assert drawn is not None
    assert drawn.heights.sum() == present
