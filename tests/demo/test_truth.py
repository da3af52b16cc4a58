"""The comparison of a ledger with the truth: a verdict counts only with the right reason."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from clipsieve.demo import TruthRow, compare
from clipsieve.demo.truth import DataSet, Outcome, Verdict


def true(
    sample_id: str,
    fault: str | None = None,
    *,
    verdict: Verdict = "kept",
    rule: str | None = None,
    image: int | None = 0,
    data_set: DataSet = "documents",
) -> TruthRow:
    return {
        "data_set": data_set,
        "sample_id": sample_id,
        "image": image,
        "fault": fault,
        "detail": None,
        "verdict": verdict,
        "rule": rule,
        "duplicate_of": None,
        "shows": None,
        "colours": [],
        "shapes": [],
        "single_object": False,
    }


def ledger(*rows: dict[str, Any]) -> pa.Table:
    schema = pa.schema(
        {
            "sample_id": pa.string(),
            "image": pa.int32(),
            "verdict": pa.string(),
            "reason": pa.string(),
            "error": pa.string(),
        }
    )
    return pa.Table.from_pylist([{"image": 0, **row} for row in rows], schema)


BLURRED = true("b", "blur", verdict="dropped", rule="blur")
EMPTY = true("e", "undecodable", verdict="failed")


@pytest.mark.parametrize(
    ("truth", "found", "right"),
    [
        (true("a"), {"sample_id": "a", "verdict": "kept"}, 1),
        (true("a"), {"sample_id": "a", "verdict": "dropped", "reason": "blur 42.1 < 100"}, 0),
        (BLURRED, {"sample_id": "b", "verdict": "dropped", "reason": "blur 42.1 < 100"}, 1),
        (BLURRED, {"sample_id": "b", "verdict": "dropped", "reason": "sample dropped: blur 42.1 < 100"}, 1),
        (BLURRED, {"sample_id": "b", "verdict": "dropped", "reason": "clip_score 0.02 < 0.2"}, 0),
        (BLURRED, {"sample_id": "b", "verdict": "failed", "error": "truncated JPEG"}, 0),
        (EMPTY, {"sample_id": "e", "verdict": "failed", "error": "empty file"}, 1),
        (EMPTY, {"sample_id": "e", "verdict": "failed"}, 0),
    ],
)
def test_a_verdict_is_right_for_the_right_reason(truth: TruthRow, found: dict[str, Any], right: int) -> None:
    outcome = compare(ledger(found), [truth], data_set="documents")[-1]
    assert (outcome.fault, outcome.planted, outcome.right) == (truth["fault"], 1, right)


def test_clean_images_come_first_and_an_image_that_the_ledger_lost_is_not_right() -> None:
    truth = [true("a"), true("c"), BLURRED, true("p", data_set="pairs")]
    outcomes = compare(ledger({"sample_id": "a", "verdict": "kept"}), truth, data_set="documents")
    assert outcomes == (
        Outcome(fault=None, verdict="kept", planted=2, right=1),
        Outcome(fault="blur", verdict="dropped", planted=1, right=0),
    )
    assert [outcome.share for outcome in outcomes] == [0.5, 0.0]


def test_a_sample_without_images_is_compared_too() -> None:
    dump = true("t", "text_dump", verdict="dropped", rule="image_text_ratio", image=None)
    found = {"sample_id": "t", "image": None, "verdict": "dropped", "reason": "image_text_ratio 0.0 < 0.001"}
    assert compare(ledger(found), [dump], data_set="documents")[-1].right == 1


def test_an_image_twice_or_unknown_is_an_error() -> None:
    kept = {"sample_id": "a", "verdict": "kept"}
    with pytest.raises(ValueError, match="image 0 of sample 'a' appears twice"):
        compare(ledger(kept, kept), [true("a")], data_set="documents")
    with pytest.raises(ValueError, match="image 0 of sample 'a' is not in the truth of the pairs"):
        compare(ledger(kept), [true("a")], data_set="pairs")
