"""Thresholds by share: what is proposed, and for how many."""

from __future__ import annotations

import numpy as np
import pytest

from clipsieve.core.rules import parse
from clipsieve.errors import RuleError
from clipsieve.report.suggest import Suggestion, asked_shares, suggest, wanted

VALUES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, np.nan, np.nan])
COMPUTED = np.array([True] * 11 + [False])  # one cannot be scored, one was left out by early exit


@pytest.mark.parametrize(
    ("like", "rule"),
    [
        ("score >= 0.5", "score >= 0.8"),
        ("score < 0.9", "score <= 0.3"),
        ("0.1 <= score <= 0.9", "0.4 <= score <= 0.6"),
        ("any(score) >= 0.5", "any(score) >= 0.8"),
        ("score in top 9%", "score >= 0.8"),
    ],
)
def test_a_share_of_the_scored_passes_in_the_direction_of_the_rule(like: str, rule: str) -> None:
    found = suggest("score", VALUES, COMPUTED, 30, parse(like)[0])
    assert found == Suggestion(name="score", rule=rule, scored=10, passing=3, unscored=1)


@pytest.mark.parametrize("percent", [0.5, 7, 30, 50, 99.5])
@pytest.mark.parametrize("name", ["clip_score", "qr_code", "aspect_ratio"])
def test_the_rule_lets_pass_what_is_said(percent: float, name: str) -> None:
    values = np.random.default_rng(0).normal(0.27, 0.06, 5000).round(5)
    found = suggest(name, values, np.ones(5000, dtype=bool), percent)
    (rule,) = parse(found.rule)
    assert rule.passes(values).sum() == found.passing
    assert found.passing / 5000 == pytest.approx(percent / 100, abs=0.0051)


def test_equal_values_are_not_parted() -> None:
    found = suggest("qr_code", np.array([0.0] * 97 + [0.1, 0.2, 0.3]), np.ones(100, dtype=bool), 30)
    assert (found.rule, found.passing) == ("qr_code <= 0", 97)


def test_without_a_rule_the_direction_is_the_usual_one() -> None:
    names = ("blur", "clip_score", "qr_code", "nearest_similarity", "image_text_ratio")
    assert [wanted(name, None) for name in names] == ["high", "high", "low", "low", "middle"]


def test_a_share_is_for_all_scores_or_for_one() -> None:
    assert asked_shares(["30%", "clip_score=20 %"], ["blur", "clip_score"]) == {"blur": 30.0, "clip_score": 20.0}


@pytest.mark.parametrize("text", ["0%", "100%", "many", "blur=", "30%%", "-5%", "0.3"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(RuleError, match="give a share between 0 and 100%"):
        asked_shares([text], ["blur"])


def test_nothing_is_suggested_without_values() -> None:
    with pytest.raises(RuleError, match="has no blur to judge by"):
        suggest("blur", VALUES, np.zeros(12, dtype=bool), 30)
