"""Decisions: rules replayed in order over the scores of whole samples."""

from __future__ import annotations

from typing import Literal

import numpy as np

from clipsieve.core.decide import BoundRule, Geometry, OnError, Verdicts, decide
from clipsieve.core.rules import parse

NAN = np.nan


def bound(
    text: str, unit: Literal["image", "pair", "sample"] = "image", drop: Literal["image", "sample"] = "image"
) -> BoundRule:
    (rule,) = parse(text)
    return BoundRule(rule=rule, unit=unit, why_missing="no text", drop=drop)


# Two documents: images 0, 1 and 2 in the first (with text), image 3 in the second (without).
GEOMETRY = Geometry(
    samples=2,
    image_samples=np.array([0, 0, 0, 1]),
    pairs=np.array([[0, 1], [0, 2], [1, 2]]),
    has_text=np.array([True, False]),
)


def judge(
    *rules: BoundRule,
    errors: dict[int, str] | None = None,
    on_error: OnError = "drop",
    **scores: list[float],
) -> Verdicts:
    values = {name: np.array(numbers, dtype=np.float64) for name, numbers in scores.items()}
    return decide(rules, values, GEOMETRY, errors or {}, on_error)


def test_an_image_rule_drops_the_image_and_an_emptied_sample() -> None:
    verdicts = judge(bound("blur >= 100"), blur=[50, 150, 150, 20])
    assert verdicts.images.tolist() == [False, True, True, False]
    assert verdicts.samples.tolist() == [True, False]
    assert verdicts.image_reasons == ["blur 50 < 100", None, None, "blur 20 < 100"]
    assert verdicts.sample_rules == [None, "blur >= 100"]


def test_a_sample_without_images_but_with_text_stays() -> None:
    verdicts = judge(bound("blur >= 100"), blur=[50, 50, 50, 150])
    assert verdicts.samples.tolist() == [True, True]


def test_drop_sample_takes_the_neighbours_along_and_says_so() -> None:
    verdicts = judge(bound("blur >= 100", drop="sample"), blur=[150, 50, 150, 150])
    assert verdicts.images.tolist() == [False, False, False, True]
    assert verdicts.image_reasons[:2] == ["sample dropped: blur 50 < 100", "blur 50 < 100"]


def test_a_later_rule_does_not_look_at_what_is_gone() -> None:
    rules = (bound("blur >= 100"), bound("clip_score >= 0.2"))
    verdicts = judge(*rules, blur=[50, 150, 150, 150], clip_score=[0.1, 0.1, 0.3, NAN])
    assert verdicts.image_reasons == ["blur 50 < 100", "clip_score 0.1 < 0.2", None, "clip_score missing: no text"]


def test_any_counts_only_images_still_in() -> None:
    rules = (bound("blur >= 100"), bound("any(clip_score) >= 0.2", drop="sample"))
    verdicts = judge(*rules, blur=[50, 150, 150, 150], clip_score=[0.9, 0.1, 0.1, 0.9])
    assert verdicts.samples.tolist() == [False, True]
    assert verdicts.image_reasons[1] == "sample dropped: any(clip_score) 0.1 < 0.2"


def test_a_pair_rule_judges_the_sample_and_one_image_has_no_pair() -> None:
    verdicts = judge(bound("any(similarity) >= 0.8", "pair", "sample"), similarity=[0.1, 0.9, 0.2])
    assert verdicts.samples.tolist() == [True, False]
    assert verdicts.sample_reasons[1] == "any(similarity) missing: fewer than two images"


def test_a_sample_rule_judges_samples_without_images_too() -> None:
    geometry = Geometry(
        samples=2, image_samples=np.array([0]), pairs=np.zeros((0, 2), int), has_text=np.array([True, True])
    )
    verdicts = decide(
        [bound("ratio >= 0.001", "sample", "sample")], {"ratio": np.array([0.1, 0.0])}, geometry, {}, "drop"
    )
    assert verdicts.samples.tolist() == [True, False]


def test_a_failed_image_under_each_policy() -> None:
    errors = {1: "undecodable: truncated JPEG", 3: "missing: no such file"}
    drop = judge(errors=errors)
    assert (drop.images.tolist(), drop.samples.tolist()) == ([True, False, True, False], [True, False])
    assert drop.sample_failed.tolist() == [False, True]

    whole = judge(errors=errors, on_error="drop-sample")
    assert (whole.images.tolist(), whole.sample_failed.tolist()) == ([False] * 4, [True, True])
    assert whole.image_reasons[0] == "sample dropped: image 1 failed: undecodable: truncated JPEG"

    keep = judge(bound("blur >= 100"), errors=errors, on_error="keep", blur=[150, NAN, 50, NAN])
    assert keep.images.tolist() == [True, True, False, True]  # a failed image is exempt from rules
