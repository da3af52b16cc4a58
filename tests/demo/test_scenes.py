"""Scenes: what a caption says is what the image shows, and the pixels never change."""

from __future__ import annotations

import hashlib
import random

import cv2
import numpy as np
import pytest
from PIL import Image

from clipsieve.demo.faults import blurred, with_qr_code
from clipsieve.demo.prose import paragraph
from clipsieve.demo.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing, draw_scene, render

RED_STAR = Thing(colour="red", shape="star")
BLUE_RING = Thing(colour="blue", shape="ring")


def scene(
    *things: Thing, relation: str = "left of", width: int = 400, height: int = 300, texture: str = "plain"
) -> Scene:
    return Scene(
        things=things, relation=relation, background="white", texture=texture, width=width, height=height, grain=1
    )


def laplacian_variance(image: Image.Image) -> float:
    return float(cv2.Laplacian(np.asarray(image), cv2.CV_64F).var())


def where(image: Image.Image, colour: str) -> tuple[float, float]:
    """The mean x and y of the pixels near a colour."""
    distance = np.abs(np.asarray(image, np.int16) - np.array(COLOURS[colour])).sum(2)
    y, x = np.nonzero(distance < 120)
    return float(x.mean()), float(y.mean())


@pytest.mark.parametrize(
    ("shown", "caption"),
    [
        (scene(RED_STAR), "a red star on a white background"),
        (scene(RED_STAR, BLUE_RING), "a red star left of a blue ring on a white background"),
        (scene(Thing(colour="orange", shape="heart")), "an orange heart on a white background"),
    ],
)
def test_a_caption_names_the_things_their_order_and_the_background(shown: Scene, caption: str) -> None:
    assert shown.caption == caption


@pytest.mark.parametrize("relation", ["left of", "right of", "above", "below"])
def test_things_stand_as_the_caption_says(relation: str) -> None:
    image = render(scene(RED_STAR, BLUE_RING, relation=relation))
    (red_x, red_y), (blue_x, blue_y) = where(image, "red"), where(image, "blue")
    order = {"left of": red_x < blue_x, "right of": red_x > blue_x, "above": red_y < blue_y, "below": red_y > blue_y}
    assert order[relation]


def test_things_lie_within_the_centre_that_clip_sees() -> None:
    image = render(scene(RED_STAR, BLUE_RING, width=640, height=256))
    outside = np.concatenate([np.asarray(image)[:, :190], np.asarray(image)[:, -190:]], axis=1)
    assert (outside.max(2) - outside.min(2)).max() < 80, "only the background, which has hardly any colour"


def test_the_pixels_are_the_same_on_every_machine() -> None:
    pixels = render(scene(RED_STAR, BLUE_RING, texture="checked")).tobytes()
    assert hashlib.sha256(pixels).hexdigest()[:16] == "0279a0ef25448ced"


def test_drawn_scenes_vary_and_leave_out_what_is_to_be_avoided() -> None:
    rng = random.Random(0)
    drawn = [draw_scene(rng, avoid={RED_STAR}) for _ in range(500)]
    things = [thing for each in drawn for thing in each.things]
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {each.background for each in drawn} == set(BACKGROUNDS)
    assert RED_STAR not in things
    assert all(256 <= side <= 640 for each in drawn for side in (each.width, each.height))


def test_a_scene_is_sharp_until_it_is_blurred() -> None:
    rng = random.Random(0)
    for _ in range(20):
        image = render(draw_scene(rng))
        assert laplacian_variance(image) > 400
        assert laplacian_variance(blurred(image, rng)) < 25


@pytest.mark.parametrize("area", [0.02, 0.1, 0.3])
def test_a_qr_code_has_the_area_it_is_asked_to_have(area: float) -> None:
    image = render(scene(RED_STAR, width=500, height=400))
    marked, found = with_qr_code(image, random.Random(0), area=area)
    assert marked.size == image.size
    assert found == pytest.approx(area, rel=0.05)


def test_filler_prose_names_nothing_that_a_scene_shows() -> None:
    rng = random.Random(0)
    text = paragraph(rng, words=5000)
    assert 5000 <= len(text.split()) < 5030
    assert {*COLOURS, *SHAPES, *BACKGROUNDS}.isdisjoint(text.lower().replace(",", " ").replace(".", " ").split())
