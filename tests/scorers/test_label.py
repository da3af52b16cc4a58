"""Labels of coloured images, by a model that sees only colours."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from clipsieve.core.batch import Batch
from clipsieve.core.contracts import PromptedScorer
from clipsieve.core.embed import Prompts, check_prompts, embed_prompts
from clipsieve.errors import RecipeError, RuleError
from clipsieve.plan import make_plan
from clipsieve.recipe import Recipe
from clipsieve.scorers import Label
from clipsieve.scorers.label import probabilities
from tests.fakes import ColourEncoder, image_bytes

COLOURS = ["red", "green", "blue"]
IMAGES = [image_bytes("red"), image_bytes("blue"), b"broken", image_bytes("green")]


def of(prompts: list[tuple[str, ...]], vectors: list[list[float]], *, sigmoid: bool, bias: float = 0.0) -> Prompts:
    unit = [np.array(vector, np.float32) / np.linalg.norm(vector) for vector in vectors]
    return Prompts(vectors=dict(zip(prompts, unit, strict=True)), logit_scale=10.0, logit_bias=bias, sigmoid=sigmoid)


def test_the_best_label_and_its_probability(encoder: ColourEncoder) -> None:
    found = Label(labels=COLOURS, templates=["{} thing"], model=encoder)(IMAGES)
    assert found["label"].tolist() == ["red", "blue", None, "green"]
    assert np.isnan(found["label_probability"]).tolist() == [False, False, True, False]
    assert (found["label_probability"][[0, 1, 3]] > 0.99).all()


def test_softmax_over_the_scaled_cosines() -> None:
    prompts = of([("x",), ("y",)], [[1, 0], [3, 4]], sigmoid=False, bias=7.0)
    image = np.array([[1, 0]], np.float32)
    expected = np.exp([10.0, 6.0]) / np.exp([10.0, 6.0]).sum()
    np.testing.assert_allclose(probabilities(image, prompts.of([("x",), ("y",)]), prompts)[0], expected, rtol=1e-6)


def test_a_sigmoid_judges_each_label_by_itself() -> None:
    prompts = of([("x",), ("y",)], [[1, 0], [3, 4]], sigmoid=True, bias=-8.0)
    image = np.array([[1, 0]], np.float32)
    expected = 1 / (1 + np.exp([-2.0, 2.0]))
    np.testing.assert_allclose(probabilities(image, prompts.of([("x",), ("y",)]), prompts)[0], expected, rtol=1e-6)


def test_the_best_of_labels_that_all_round_to_zero_is_the_best() -> None:
    scorer = Label(labels=["x", "y"], templates=["{}"], all=True)
    prompts = of([("x",), ("y",)], [[0, 1], [3, 4]], sigmoid=True, bias=-30.0)
    found = scorer.of_vectors(np.array([[1, 0]], np.float32), prompts)
    assert (found["label"].to_pylist(), found["label_probability"].to_pylist()) == (["y"], [0.0])
    assert [pair["label"] for pair in found["label_probabilities"].to_pylist()[0]] == ["y", "x"]


def test_several_templates_average_their_unit_vectors(encoder: ColourEncoder) -> None:
    prompts = embed_prompts(encoder, [("red", "green thing"), ("blue",)])
    mean = (encoder.texts(["red"]) + encoder.texts(["green"]))[0]
    np.testing.assert_allclose(prompts.vectors["red", "green thing"], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(prompts.vectors["blue",], encoder.texts(["blue"])[0], atol=1e-6)


def test_below_min_probability_it_is_none_of_these(encoder: ColourEncoder) -> None:
    options: dict[str, Any] = {"labels": ["red", "blue"], "templates": ["{}"], "model": encoder}
    sure = Label(**options)([image_bytes("red"), image_bytes("white")])
    found = Label(**options, min_probability=0.9)([image_bytes("red"), image_bytes("white")])
    assert found["label"].tolist() == ["red", "none of these"]
    np.testing.assert_array_equal(found["label_probability"], sure["label_probability"])
    assert 0.5 <= found["label_probability"][1] < 0.9


def test_all_adds_every_label_the_best_first(encoder: ColourEncoder) -> None:
    scorer = Label(labels=COLOURS, templates=["{}"], all=True, model=encoder)
    (first, _, broken, _) = scorer(IMAGES)["label_probabilities"]
    assert [pair["label"] for pair in first] == ["red", "green", "blue"]
    assert sum(pair["probability"] for pair in first) == pytest.approx(1, abs=2e-5)
    assert broken is None
    assert "label_probabilities" not in Label.columns


def test_prompts_are_embedded_once_for_many_calls(encoder: ColourEncoder) -> None:
    scorer = Label(labels=COLOURS, templates=["{}", "{} thing"], model=encoder)
    for _ in range(3):
        scorer([image_bytes("red")])
    assert sorted(text for batch in encoder.text_batches for text in batch) == sorted(
        [*COLOURS, *(f"{colour} thing" for colour in COLOURS)]
    )


def test_it_travels_to_a_worker(encoder: ColourEncoder) -> None:
    scorer = Label(labels=COLOURS, templates=["{}"], all=True)
    assert isinstance(scorer, PromptedScorer)
    sent, prompts = pickle.loads(pickle.dumps((scorer, embed_prompts(encoder, scorer.prompts))))
    batch = Batch.from_lists(IMAGES[:1])
    batch.image_vectors, batch.prompts = encoder.images(np.full((1, 8, 8, 3), (200, 9, 9), np.uint8)), prompts
    assert (sent, hash(sent), sent.columns) == (scorer, hash(scorer), scorer.columns)
    assert sent.score(batch)["label"].to_pylist() == ["red"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "two or more to choose between"),
        ({"labels": ["cat"]}, "two or more to choose between"),
        ({"labels": "cat, dog"}, r"labels is a list, such as \[cat, dog\]"),
        ({"labels": ["cat", "dog", "cat"]}, "labels hold 'cat' twice"),
        ({"labels": ["Cat", "dog", "cat "]}, "labels hold 'cat' twice, once as 'Cat'"),
        ({"labels": ["cat", " "]}, "labels hold a blank one"),
        ({"labels": [True, False]}, "labels are texts; put True in quotes"),
        ({"labels": ["cat", "none of these"]}, "'none of these' is what an image below min_probability is called"),
        ({"labels": ["cat", "dog"], "templates": ["a photo"]}, "the template 'a photo' has no {} for the label"),
        ({"labels": ["cat", "dog"], "templates": []}, "templates are empty"),
        ({"labels": ["cat", "dog"], "min_probability": 60}, "min_probability lies between 0 and 1, not at 60"),
        ({"labels": ["cat", "dog"], "min_probability": float("nan")}, "min_probability lies between 0 and 1"),
        ({"labels": ["cat", "dog"], "min_probability": "0.6"}, "min_probability is a number, not '0.6'"),
        ({"labels": ["cat", "dog"], "all": "yes"}, "all is true or false, not 'yes'"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Label(**options)


def test_a_label_may_hold_any_character() -> None:
    assert Label(labels=["a {b}", "{}"], templates=["x {0} {}"]).prompts == (("x {0} a {b}",), ("x {0} {}",))


def test_a_prompt_over_the_context_is_refused(encoder: ColourEncoder) -> None:
    with pytest.raises(RecipeError, match="prompt over the model's context: 'one two three four five'"):
        check_prompts(encoder, [("short",), ("one two three four five",)])


# In a recipe.


def recipe(*keep: str, **options: Any) -> Recipe:
    label = {"labels": ["red", "dark blue"], "templates": ["{}"], **options}
    return Recipe.build({"read": "x", "keep": list(keep), "scores": {"label": label}})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("label in (red, blue)", "label is never 'blue'; did you mean 'dark blue'?"),
        ('label == "zebra"', "label is never 'zebra'; it is one of red, dark blue"),
        ('label in ("none of these")', "label is never 'none of these'"),
        ("label >= 0.5", "label is a text"),
        ("label_probabilities >= 0.5", "unknown score 'label_probabilities'; did you mean 'label_probability'"),
    ],
)
def test_a_rule_that_no_label_can_pass_is_refused(rule: str, words: str) -> None:
    with pytest.raises(RuleError, match=words.replace("?", r"\?")):
        make_plan(recipe(rule), "captions")


def test_a_rule_may_ask_for_none_of_these_where_that_can_be() -> None:
    make_plan(recipe('label in ("none of these", "dark blue")', min_probability=0.5), "captions")


def test_a_rule_on_labels_without_labels_says_what_to_do() -> None:
    asked = Recipe.build({"read": "x", "keep": ["label in (cat, dog)"]})
    with pytest.raises(RecipeError, match=r"scores\.label/label_probability: labels must be .* such as \[cat, dog\]"):
        make_plan(asked, "captions")
