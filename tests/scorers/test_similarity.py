"""``clip_score`` and ``pair_similarity``, through an encoder that sees the average colour and reads colour words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clipsieve.core.contracts import Encoder, Pixels
from clipsieve.core.embed import LongText
from clipsieve.errors import ModelError
from clipsieve.scorers import ClipScore, PairSimilarity
from tests.fakes import COLOURS


def patch(*rgb: int) -> Pixels:
    return np.full((8, 8, 3), rgb, np.uint8)


def cosine(one: str, other: str) -> float:
    a, b = np.array(COLOURS[one]), np.array(COLOURS[other])
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


RED, GREEN, BLUE = (patch(*COLOURS[name]) for name in ("red", "green", "blue"))
RED_GREEN, GREEN_BLUE, RED_BLUE = cosine("red", "green"), cosine("green", "blue"), cosine("red", "blue")


@pytest.mark.parametrize(
    ("images", "texts", "expected"),
    [
        ([RED], ["red"], [1.0]),
        ([RED], ["green"], [RED_GREEN]),
        ([RED], [["green", "blue", "red"]], [1.0]),
        ([[RED, GREEN, BLUE]], [["red", "blue"]], [1.0, max(RED_GREEN, GREEN_BLUE), 1.0]),
        ([RED, GREEN], ["green", "red"], [RED_GREEN, RED_GREEN]),
        ([RED, GREEN, RED], ["red", None, "red"], [1.0, np.nan, 1.0]),
        ([RED, GREEN], ["  ", []], [np.nan, np.nan]),
        ([[RED, b"broken"], []], ["red", "red"], [1.0, np.nan]),
    ],
)
def test_clip_score_is_the_best_cosine_to_a_text_of_the_sample(
    encoder: Encoder, images: list[Any], texts: list[Any], expected: list[float]
) -> None:
    scores = ClipScore(model=encoder)(images, texts)["clip_score"]

    np.testing.assert_array_equal(scores, np.round(expected, 5))


def test_scores_are_rounded_and_never_above_one(encoder: Encoder) -> None:
    shades = [patch(*np.random.default_rng(seed).integers(1, 256, 3)) for seed in range(50)]

    scores = ClipScore(model=encoder)(shades, ["red green blue"] * 50)["clip_score"]
    twins = PairSimilarity(model=encoder)([[shade, shade] for shade in shades])["pair_similarity"]

    assert scores.tolist() == [round(score, 5) for score in scores.tolist()]
    assert twins.tolist() == [1.0] * 50


@pytest.mark.parametrize(
    ("long_text", "expected"),
    [
        ("truncate", RED_GREEN),
        ("chunk-max", 1.0),
        ("chunk-mean", ((1 + RED_GREEN) / 2) ** 0.5),  # half the angle between red and green
    ],
)
def test_long_text(encoder: Encoder, long_text: LongText, expected: float) -> None:
    text = "a green ball on red red red red"  # the encoder takes four words

    score = ClipScore(model=encoder, long_text=long_text)([RED], [text])["clip_score"][0]

    assert score == pytest.approx(expected, abs=1e-5)


def test_long_text_can_be_an_error(encoder: Encoder) -> None:
    with pytest.raises(ModelError, match="text over the model's context: 'one two three four five'"):
        ClipScore(model=encoder, long_text="error")([RED], ["one two three four five"])


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([[RED, GREEN, BLUE]], [RED_GREEN, RED_BLUE, GREEN_BLUE]),
        ([[RED, RED], [RED, BLUE]], [1.0, RED_BLUE]),
        ([RED, RED], []),
        ([[RED, b"broken", RED]], [np.nan, 1.0, np.nan]),
    ],
)
def test_pair_similarity_of_every_pair_in_a_sample(encoder: Encoder, images: list[Any], expected: list[float]) -> None:
    scores = PairSimilarity(model=encoder)(images)["pair_similarity"]

    np.testing.assert_array_equal(scores, np.round(expected, 5))
