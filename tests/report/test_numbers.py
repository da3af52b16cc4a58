"""The numbers of a run: a funnel that adds up, distributions that count each value once, and close calls."""

from __future__ import annotations

import math

import pyarrow as pa

from clipsieve.core.ledger import Counts, Tally
from clipsieve.plan import make_plan
from clipsieve.recipe import Recipe
from clipsieve.report.numbers import close_calls, distributions, error_kinds, funnel, warnings
from tests.report import ledgers

COUNTS = Counts(images=Tally(kept=3, dropped=6, failed=1), dropped_by={"blur >= 100": 5}, errors={"empty: 0 bytes": 1})


def ledger(**scores: pa.Array) -> pa.Table:
    """Two samples of two images and one without; ``words`` has a value a sample."""
    rows = len(next(iter(scores.values())))
    base = {
        "shard": pa.array([0] * rows, pa.int32()), "row": pa.array(range(rows), pa.int64()),
        "image": pa.array([0] * rows, pa.int32()), "sample": pa.array([0, 0, 1, 1, 2][:rows], pa.int32()),
        "sample_id": pa.nulls(rows, pa.string()), "reference": pa.nulls(rows, pa.string()),
        "verdict": ["kept"] * rows, "rule": pa.nulls(rows, pa.string()), "reason": pa.nulls(rows, pa.string()),
        "error": pa.nulls(rows, pa.string()), "sample_verdict": ["kept"] * rows,
        "has_text": [False] * rows,
    }  # fmt: skip
    table = pa.table(base)
    for name, column in scores.items():
        unit = "sample" if name == "words" else "image"
        table = table.append_column(pa.field(name, column.type, metadata={"unit": unit}), column)
    return table


def test_the_funnel_goes_from_what_was_read_to_what_was_kept() -> None:
    rows = [(row.step, row.out, row.left) for row in funnel(COUNTS, ["blur >= 100", "qr_code <= 0.05"])]
    assert rows == [
        ("images read", 0, 10),
        ("failed", 1, 9),
        ("blur >= 100", 5, 4),
        ("qr_code <= 0.05", 0, 4),
        ("with a failed image of their sample", 1, 3),
    ]


def test_a_rule_that_drops_more_than_half_is_named() -> None:
    assert list(warnings(COUNTS)) == []
    assert list(warnings(Counts(images=Tally(dropped=6, kept=4), dropped_by={"blur >= 100": 6}))) == [
        "blur >= 100 dropped more than half of the images"
    ]
    assert list(warnings(Counts(images=Tally(dropped=2), dropped_by={"blur >= 100": 2}))) == [
        "blur >= 100 dropped all of the images"
    ]


def test_a_run_in_which_most_images_failed_says_as_what() -> None:
    errors = {"missing: no such file": 4, "undecodable: truncated JPEG": 2}
    assert list(warnings(Counts(images=Tally(failed=6, kept=4), errors=errors))) == [
        "6 of 10 images failed, 4 of them as: missing: no such file"
    ]


def test_a_distribution_tells_values_from_missing_and_not_computed() -> None:
    (blur,) = distributions(ledger(blur=pa.array([1.0, 3.0, math.nan, None, 2.0])))
    assert (blur.values, blur.missing, blur.skipped, blur.percentiles[50]) == (3, 1, 1, 2.0)


def test_a_score_of_a_sample_counts_once_a_sample() -> None:
    (words,) = distributions(ledger(words=pa.array([5.0, 5.0, 7.0, 7.0, 9.0])))
    assert (words.values, words.percentiles[50]) == (3, 7.0)


def test_close_calls_are_model_scores_at_a_threshold() -> None:
    table = ledger(clip_score=pa.array([0.2, 0.20001, 0.20002, None, math.nan]), blur=pa.array([100.0] * 5))
    assert (
        close_calls(
            table, make_plan(Recipe.build({"read": "x", "keep": ["clip_score >= 0.2", "blur >= 100"]}), "captions")
        )
        == 2
    )


def test_a_histogram_lies_between_the_outer_percentiles() -> None:
    (blur,) = distributions(ledger(blur=pa.array([0.0, 1.0, 2.0, 3.0, 4.0])))
    assert (blur.edges[0], blur.edges[-1]) == (blur.percentiles[1], blur.percentiles[99])
    assert blur.heights.sum() == 3


def test_errors_are_told_by_kind_with_examples_of_different_ones_first() -> None:
    errors = ["undecodable: broken", "undecodable: broken", "missing: no such file", "undecodable: no frame", None]
    table = ledgers.ledger(["failed"] * 4 + [None], error=errors)
    kinds = [(one.kind, one.images, [name for name, _ in one.examples]) for one in error_kinds(table, 2)]
    assert kinds == [("undecodable", 3, ["0.png", "3.png"]), ("missing", 1, ["2.png"])]


def test_why_images_were_not_fetched_is_told_apart() -> None:
    errors = ["not fetched: status 404", "not fetched: timed out", "not fetched: status 404"]
    kinds = error_kinds(ledgers.ledger(["failed"] * 3, error=errors), 1)
    assert [(one.kind, one.images) for one in kinds] == [("not fetched: status 404", 2), ("not fetched: timed out", 1)]
    assert kinds[0].examples == [("0.png", "")]


def test_a_line_number_makes_no_kind_of_its_own() -> None:
    errors = ["malformed JSON at line 7: no comma", "malformed JSON at line 23: no quote"]
    table = ledgers.ledger(["failed"] * 2, error=errors, reference=pa.nulls(2, pa.string()), row=[6, 22])
    (kind,) = error_kinds(table, 2)
    assert (kind.kind, kind.images) == ("malformed JSON", 2)
    assert kind.examples == [
        ("row 6 of shard 0", "at line 7: no comma"), ("row 22 of shard 0", "at line 23: no quote"),
    ]  # fmt: skip
