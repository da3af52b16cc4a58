"""Thresholds by share: what is proposed, and for how many."""

from __future__ import annotations

import numpy as np
import pytest

from clipsieve.core.rules import parse
from clipsieve.errors import RuleError
from clipsieve.report.suggest import Suggestion, Wanted, asked_shares, suggest, wanted

VALUES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, np.nan, np.nan])
COMPUTED = np.array([True] * 11 + [False])  # one cannot be scored, one was left out by early exit


@pytest.mark.parametrize(
    ("of", "rule"), [("high", "score >= 0.8"), ("low", "score <= 0.3"), ("middle", "0.4 <= score <= 0.6")]
)
def test_a_share_of_the_scored_passes(of: Wanted, rule: str) -> None:
    assert suggest("score", VALUES, COMPUTED, 30, of) == Suggestion(rule=rule, scored=10, passing=3, unscored=1)


@pytest.mark.parametrize("percent", [0.5, 7, 30, 50, 99.5])
@pytest.mark.parametrize("of", ["high", "low", "middle"])
def test_the_rule_lets_pass_what_is_said(percent: float, of: Wanted) -> None:
    values = np.random.default_rng(0).normal(0.27, 0.06, 5000).round(5)
    found = suggest("clip_score", values, np.ones(5000, dtype=bool), percent, of)
    (rule,) = parse(found.rule)
    assert rule.passes(values).sum() == found.passing
    assert found.passing / 5000 == pytest.approx(percent / 100, abs=0.0051)


def test_equal_values_are_not_parted() -> None:
    found = suggest("qr_code", np.array([0.0] * 97 + [0.1, 0.2, 0.3]), np.ones(100, dtype=bool), 30, "low")
    assert (found.rule, found.passing) == ("qr_code <= 0", 97)


def test_the_direction_is_that_of_the_rule_or_the_usual_one() -> None:
    rules = parse("blur <= 900 and 0.1 <= clip_score <= 0.4")
    assert [wanted(name, rules) for name in ("blur", "clip_score", "qr_code", "width", "image_text_ratio")] == [
        "low", "middle", "low", "high", "middle",
    ]  # fmt: skip


def test_a_share_is_for_all_scores_or_for_one() -> None:
    assert asked_shares(["30%", "clip_score=20"], ["blur", "clip_score"]) == {"blur": 30.0, "clip_score": 20.0}


@pytest.mark.parametrize("text", ["0%", "100%", "many", "blur=", "30%%", "-5%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(RuleError, match="give a share between 0 and 100%"):
        asked_shares([text], ["blur"])


def test_nothing_is_suggested_without_values() -> None:
    with pytest.raises(RuleError, match="has no blur to judge by"):
        suggest("blur", VALUES, np.zeros(12, dtype=bool), 30, "high")
