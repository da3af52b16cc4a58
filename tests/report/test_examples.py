"""Which images a report shows: exactly the nearest to a threshold, and a random choice that is the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clipsieve.plan import Plan, make_plan
from clipsieve.recipe import Recipe
from clipsieve.report.examples import SHARDS, examples
from clipsieve.report.strips import AtThreshold, Examples, Tile
from clipsieve.report.values import Scores
from tests.report.ledgers import ledger


def plan(*keep: str, layout: Any = "captions", **options: Any) -> Plan:
    return make_plan(Recipe.build({"read": "x", "model": "demo", "keep": list(keep), **options}), layout)


def chosen(table: pa.Table, by: Plan) -> Examples:
    return examples(Scores(table, by.steps), by)


def rows(tiles: Any) -> list[int]:
    return [tile.row for tile in tiles]


def sides(at: AtThreshold) -> tuple[str, float, list[int], list[int]]:
    return (*at.at, rows(at.dropped), rows(at.passed))


def test_the_nearest_on_both_sides_of_both_thresholds() -> None:
    rule = "100 <= blur <= 900"
    table = ledger([rule, None, rule, None, rule, rule], blur=[90.0, 100.0, 20.0, 500.0, 901.0, float("nan")],
                   reason=[*["not it"] * 5, "blur missing: the image cannot be read"])  # fmt: skip
    (found,) = chosen(table, plan(rule)).rules
    assert [sides(at) for at in found.thresholds] == [(">=", 100.0, [0, 2], [1, 3]), ("<=", 900.0, [4], [3, 1])]
    assert (found.images, found.missing) == (4, 1)
    assert rows(found.dropped) == [0, 2, 4, 5]  # one of them lies at no threshold


def test_what_the_thresholds_show_whole_is_not_shown_again() -> None:
    rule = "blur >= 100"
    (found,) = chosen(ledger([rule, None, rule], blur=[90.0, 100.0, 20.0]), plan(rule)).rules
    assert (found.images, rows(found.thresholds[0].dropped), found.dropped) == (2, [0, 2], [])


def test_what_went_for_want_of_a_value_is_counted_in_images() -> None:
    rule = "any(pair_similarity) >= 0.1"
    told = ["any(pair_similarity) missing: fewer than two images", "any(pair_similarity) 0.05 < 0.1"]
    table = ledger(
        [rule] * 4, {"pair_similarity": "pair"}, sample=[0, 1, 1, 1], image=[0, 0, 1, 2],
        reason=[f"sample dropped: {told[0]}", *[f"sample dropped: {told[1]}"] * 3],
        pair_similarity=pa.array([[], [0.05, 0.05], [0.05], []], pa.list_(pa.float64())),
    )  # fmt: skip
    (found,) = chosen(table, plan(rule, layout="lists")).rules
    assert (found.images, found.missing) == (4, 1)


def test_without_rules_there_are_images_along_each_score() -> None:
    count = 1000
    blur = np.random.default_rng(0).permutation(count).astype(float)
    blur[5] = float("nan")
    found = chosen(ledger([None] * count, blur=blur, width=blur), plan())
    (along,) = found.scores
    values = [tile.value for tile in along.tiles]
    assert (along.score, along.values, len(values)) == ("blur", 999, 10)
    assert values == sorted(values)
    assert values[0] == pytest.approx(10, abs=2)
    assert values[-1] == pytest.approx(990, abs=2)
    assert not chosen(ledger([None], blur=[1.0]), plan("blur >= 1")).scores


def test_what_an_earlier_rule_dropped_has_not_passed_and_what_a_later_one_dropped_has() -> None:
    first, second = "width >= 10", "blur >= 100"
    width, blur = [5.0, 20.0, 30.0, float("nan")], [150.0, 50.0, 200.0, None]
    table = ledger([first, second, None, "failed"], width=width, blur=blur)
    by_width, by_blur = chosen(table, plan(first, second)).rules
    assert sides(by_width.thresholds[0]) == (">=", 10.0, [0], [1, 2])
    assert sides(by_blur.thresholds[0]) == (">=", 100.0, [1], [2])  # row 0 was scored, but never judged


def test_a_share_of_the_whole_is_shown_at_what_it_came_to() -> None:
    rule = "clip_score in top 50%"
    (found,) = chosen(ledger([rule, None, None, rule], clip_score=[0.1, 0.4, 0.3, 0.2]), plan(rule)).rules
    assert sides(found.thresholds[0]) == (">=", 0.3, [3, 0], [2, 1])


def test_a_rule_on_samples_shows_their_images_and_one_on_pairs_both() -> None:
    table = ledger(
        [None] * 3, {"words": "sample", "pair_similarity": "pair"}, sample=[0, 0, 1], image=[0, 1, 0],
        words=[5.0, 5.0, 7.0], pair_similarity=pa.array([[0.5], [], []], pa.list_(pa.float64())),
    )  # fmt: skip
    words, pairs = chosen(table, plan("words >= 1", "any(pair_similarity) >= 0.1", layout="lists")).rules
    assert [tile.images for tile in words.thresholds[0].passed] == [(0, 1), (2,)]
    assert [tile.images for tile in pairs.thresholds[0].passed] == [(0, 1)]


def test_a_sample_without_images_has_a_tile_without_pictures() -> None:
    table = ledger([None, None], {"words": "sample"}, image=[None, 0], words=[5.0, 7.0])
    (words,) = chosen(table, plan("words >= 1", layout="interleaved")).rules
    assert words.thresholds[0].passed[0] == Tile(row=0, images=(), value=5.0, sample=True)


def test_near_duplicates_are_shown_with_their_nearest_and_what_stays_comes_first() -> None:
    table = ledger(
        ["dedup 0.9", None, None, "dedup 0.9"],
        max_similarity=[0.95, 0.95, 0.5, 0.91],
        nearest=pa.array(["1.png", "0.png", "twice.png", "1.png"]),
        duplicate_group=pa.array([1, 1, None, 1], pa.int64()),
    )
    found = chosen(table, plan(dedup=0.9))
    (at,) = found.rules[0].thresholds
    assert [tile.images for tile in at.dropped] == [(3, 1), (0, 1)]
    assert [tile.images for tile in at.passed] == [(2,)]  # nothing of this run is called twice.png
    (group,) = found.groups
    assert (group.images, rows(group.tiles)) == (3, [1, 0, 3])


def test_random_choices_come_from_few_shards_and_are_the_same_each_time() -> None:
    rule, count = "blur >= 100", 4000
    table = ledger([rule] * count, shard=[row // 40 for row in range(count)], blur=np.linspace(0, 99, count))
    (found,) = chosen(table, plan(rule)).rules
    assert found.shards == SHARDS
    assert len({row // 40 for row in rows(found.dropped)}) <= SHARDS
    assert chosen(table, plan(rule)).rules[0] == found


def test_what_is_rare_comes_from_wherever_it_lies() -> None:
    rule, count = "blur >= 100", 4000
    table = ledger(
        [rule if row % 1000 == 0 else None for row in range(count)],
        shard=[row // 40 for row in range(count)],
        blur=[float("nan") if row % 1000 == 0 else 200.0 for row in range(count)],
    )  # fmt: skip
    (found,) = chosen(table, plan(rule)).rules
    assert (rows(found.dropped), found.shards) == ([0, 1000, 2000, 3000], None)


def test_many_rules_share_the_room_for_pictures() -> None:
    steps = [f"blur >= {number}" for number in range(100)]
    table = ledger([step for step in steps for _ in range(20)], blur=[float(number) for number in range(2000)])
    found = chosen(table, plan(*steps))
    assert len(found.rules) == 60
    assert sum(len(tile.images) for tile in found.tiles()) <= 400


def test_a_ledger_without_rows_of_images_has_nothing_to_show() -> None:
    table = ledger([None], image=[None], blur=pa.array([None], pa.float64()))
    (found,) = chosen(table, plan("blur >= 1")).rules
    assert (found.images, found.dropped, found.thresholds[0].passed) == (0, [], [])
