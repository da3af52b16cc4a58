"""Rules: their grammar, what passes, and the reason when something does not."""

from __future__ import annotations

import numpy as np
import pytest

from clipsieve.core.rules import Rank, Test, check_name, parse, rank_mask
from clipsieve.errors import RuleError

Test.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test to pytest


def values(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float64)


@pytest.mark.parametrize(
    ("text", "canonical", "tests"),
    [
        ("blur >= 100", "blur >= 100", (Test(">=", 100),)),
        ("blur>=1e2", "blur >= 1e2", (Test(">=", 100),)),
        ("100 <= blur < 500", "100 <= blur < 500", (Test(">=", 100), Test("<", 500))),
        (
            "0.1 <= any( pair_similarity ) <= 1.0",
            "0.1 <= any(pair_similarity) <= 1.0",
            (Test(">=", 0.1), Test("<=", 1)),
        ),
        ("clip_score > -0.5", "clip_score > -0.5", (Test(">", -0.5),)),
        ("500 > blur >= 100", "500 > blur >= 100", (Test("<", 500), Test(">=", 100))),
    ],
)
def test_comparisons_are_read(text: str, canonical: str, tests: tuple[Test, ...]) -> None:
    (rule,) = parse(text)
    assert (rule.text, rule.tests) == (canonical, tests)


def test_and_makes_rules_of_their_own() -> None:
    assert [rule.text for rule in parse("blur >= 100 and qr_code <= 0.05")] == ["blur >= 100", "qr_code <= 0.05"]


def test_shares_and_lists_are_read() -> None:
    (top,) = parse("clip_score in top 30%")
    assert (top.rank, top.text) == (Rank("top", 30.0), "clip_score in top 30%")
    (labels,) = parse("""label in ("cat", 'hot dog', bird)""")
    assert labels.members == ("cat", "hot dog", "bird")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("blur", "expected a comparison such as >=, found 'the end'"),
        ("blur >=", "expected a number, found 'the end'"),
        ("blur >= sharp", "expected a number, found 'sharp'"),
        ("blur >= 100 or qr_code <= 1", "did not expect 'or'"),
        ("blur in top 0%", "above 0 and up to 100"),
        ("any(blur) in top 10%", "plain name"),
        ("blur in 10%", "after 'in' comes"),
        ("__import__('os').system('true')", "cannot read"),
        ("blur >= 100; true", "cannot read '; true'"),
        ("", "expected the name of a score, found 'the end'"),
    ],
)
def test_a_bad_rule_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(RuleError, match="rule ") as failure:
        parse(text)
    assert says in str(failure.value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(RuleError, match="unknown score 'clipscore'; did you mean 'clip_score'"):
        check_name("clipscore", ["blur", "clip_score"])


def test_bounds_are_inclusive_as_written_and_nan_fails() -> None:
    (rule,) = parse("100 <= blur < 500")
    assert rule.passes(values(99.9, 100, 499.9, 500, np.nan)).tolist() == [False, True, True, False, False]


def test_missing_gives_a_value_to_what_cannot_be_scored() -> None:
    (strict,) = parse("clip_score >= 0.2", missing=0.0)
    (lax,) = parse("clip_score >= 0", missing=0.0)
    assert not strict.passes(values(np.nan))[0]
    assert lax.passes(values(np.nan))[0]
    assert strict.reason(values(np.nan), "no text") == "clip_score 0 < 0.2"


def test_any_and_all_take_the_whole_comparison() -> None:
    groups = np.array([0, 0, 1, 1, 2])
    similarity = values(0.05, 0.5, 0.05, 1.5, 0.5)
    (some,) = parse("0.1 <= any(pair_similarity) <= 1")
    (every,) = parse("0.1 <= all(pair_similarity) <= 1")
    assert some.passes_groups(similarity, groups, 4).tolist() == [True, False, True, False]
    assert every.passes_groups(similarity, groups, 4).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("text", "found", "reason"),
    [
        ("blur >= 100", [42.1], "blur 42.1 < 100"),
        ("qr_code <= 0.05", [0.0712345], "qr_code 0.071235 > 0.05"),
        ("0.001 <= image_text_ratio <= 0.1", [0.5], "image_text_ratio 0.5 > 0.1"),
        ("blur >= 100", [99.9999999], "blur 99.9999999 < 100"),
        ("clip_score >= 0.2", [np.nan], "clip_score missing: no text"),
        ("any(pair_similarity) >= 0.1", [0.01, 0.08], "any(pair_similarity) 0.08 < 0.1"),
        ("all(pair_similarity) >= 0.1", [0.5, 0.08], "all(pair_similarity) 0.08 < 0.1"),
        ("width == 64", [65], "width 65 != 64"),
    ],
)
def test_the_reason_reads_as_a_failed_comparison(text: str, found: list[float], reason: str) -> None:
    (rule,) = parse(text)
    assert rule.reason(values(*found), "no text") == reason


def test_a_label_that_is_not_listed_is_named() -> None:
    (rule,) = parse("label in (cat, dog)")
    labels = np.array(["cat", "bird", None], dtype=object)
    assert rule.passes(labels).tolist() == [True, False, False]
    assert rule.reason(labels[[1]], "") == "label bird not in (cat, dog)"


@pytest.mark.parametrize(
    ("rank", "chosen"),
    [
        (Rank("top", 40), [False, True, True, False, False, False]),  # 2 of 5; of the equal 3s the first
        (Rank("top", 41), [False, True, True, True, False, False]),  # more than 2 of 5 needs 3
        (Rank("bottom", 20), [True, False, False, False, False, False]),
        (Rank("top", 100), [True, True, True, True, True, False]),  # NaN is never in
    ],
)
def test_a_share_is_exact_and_ties_go_to_the_first(rank: Rank, chosen: list[bool]) -> None:
    assert rank_mask(values(1, 5, 3, 3, 2, np.nan), rank).tolist() == chosen
