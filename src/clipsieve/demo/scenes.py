"""Renders scenes of coloured shapes on textured backgrounds, each with the caption that describes it.

A scene is a small frozen value; rendering it gives the same pixels every time, on every machine. Pixels come from
integer arithmetic and from Python's own generator, whose stream is part of the language's promises.
"""

from __future__ import annotations

import random
from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Levels = npt.NDArray[np.int16]

COLOURS = {
    "red": (214, 30, 38),
    "orange": (248, 138, 24),
    "yellow": (246, 220, 40),
    "green": (30, 150, 60),
    "cyan": (50, 205, 220),
    "blue": (36, 70, 214),
    "purple": (118, 36, 158),
    "pink": (248, 138, 190),
}
BACKGROUNDS = {"white": (226, 226, 226), "grey": (128, 128, 128), "black": (32, 32, 32), "brown": (104, 72, 48)}
TEXTURES = ("plain", "striped", "checked")
RELATIONS = ("left of", "right of", "above", "below")

# Outlines in thousandths of the shape's box. None means an ellipse that fills the box.
_OUTLINES: dict[str, tuple[tuple[int, int], ...] | None] = {
    "circle": None,
    "ring": None,
    "square": ((60, 60), (940, 60), (940, 940), (60, 940)),
    "triangle": ((500, 40), (1000, 940), (0, 940)),
    "diamond": ((500, 0), (840, 500), (500, 1000), (160, 500)),
    "cross": (
        *((340, 0), (660, 0), (660, 340), (1000, 340), (1000, 660), (660, 660)),
        *((660, 1000), (340, 1000), (340, 660), (0, 660), (0, 340), (340, 340)),
    ),
    "star": (
        *((500, 0), (612, 345), (976, 345), (682, 559), (794, 905)),
        *((500, 691), (206, 905), (318, 559), (24, 345), (388, 345)),
    ),
    "heart": (
        *((500, 960), (60, 480), (10, 330), (50, 170), (150, 80), (290, 60), (410, 120)),
        *((500, 250), (590, 120), (710, 60), (850, 80), (950, 170), (990, 330), (940, 480)),
    ),
}
SHAPES = tuple(_OUTLINES)

_NOISE = 13  # Grey levels either way: Laplacian variance in the thousands, and nearly gone once an image is blurred.
_OVERSAMPLING = 2  # Outlines are drawn this much larger, then reduced, which smooths their edges.


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A shape of one colour."""

    colour: str
    shape: str

    def __str__(self) -> str:
        article = "an" if self.colour[0] in "aeiou" else "a"
        return f"{article} {self.colour} {self.shape}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What an image shows, and all that is needed to render it.

    `things` holds one thing, or two that `relation` puts in order: the first is `relation` the second.
    `width` and `height` are in pixels; `grain` seeds the places, the light and the noise.
    """

    things: tuple[Thing, ...]
    relation: str
    background: str
    texture: str
    width: int
    height: int
    grain: int

    @property
    def caption(self) -> str:
        """The scene in words: `a red star left of a blue ring on a white background`."""
        return f"{f' {self.relation} '.join(map(str, self.things))} on a {self.background} background"


def draw_scene(rng: random.Random, *, avoid: Container[Thing] = ()) -> Scene:
    """Draws a random scene of one thing (a quarter of the time) or two, none of which is in `avoid`."""
    free = [
        thing for colour in COLOURS for shape in SHAPES if (thing := Thing(colour=colour, shape=shape)) not in avoid
    ]
    return Scene(
        things=tuple(rng.sample(free, rng.choice((1, 2, 2, 2)))),
        relation=rng.choice(RELATIONS),
        background=rng.choice(tuple(BACKGROUNDS)),
        texture=rng.choice(TEXTURES),
        width=rng.randint(256, 640),
        height=rng.randint(256, 640),
        grain=rng.getrandbits(32),
    )


def render(scene: Scene) -> Image.Image:
    """Renders a scene as an RGB image of `scene.width` x `scene.height` pixels.

    Every thing lies within the central square, the part that CLIP's centre crop keeps.
    """
    rng = random.Random(scene.grain)
    backdrop = _texture(scene, rng)[:, :, None] + np.array(_tinted(BACKGROUNDS[scene.background], 10, rng), np.int16)
    image = Image.fromarray(_to_pixels(backdrop))
    for thing, (left, top, size) in zip(scene.things, _boxes(scene, rng), strict=True):
        image.paste(_tinted(COLOURS[thing.colour], 14, rng), (left, top), _mask(thing.shape, size))
    return Image.fromarray(_to_pixels(np.asarray(image, np.int16) + _noise(scene, rng)[:, :, None]))


def _texture(scene: Scene, rng: random.Random) -> Levels:
    """Returns grey offsets of shape (height, width): a slanted light and, where the scene has one, a pattern."""
    y, x = np.ogrid[: scene.height, : scene.width]
    light: npt.NDArray[np.int64] = x * rng.randint(-24, 24) // scene.width + y * rng.randint(-24, 24) // scene.height
    period, depth = rng.randint(8, 28), rng.randint(8, 20)
    slant = rng.choice((-1, 0, 1))
    if scene.texture == "striped":
        light = light + (x + slant * y) // period % 2 * depth
    elif scene.texture == "checked":
        light = light + (x // period + y // period) % 2 * depth
    return light.astype(np.int16)


def _noise(scene: Scene, rng: random.Random) -> Levels:
    """Returns grey offsets of shape (height, width), independent from pixel to pixel."""
    raw = np.frombuffer(rng.randbytes(scene.width * scene.height), np.uint8).reshape(scene.height, scene.width)
    noise: Levels = raw.astype(np.int16) * (2 * _NOISE + 1) // 256 - _NOISE
    return noise


def _boxes(scene: Scene, rng: random.Random) -> list[tuple[int, int, int]]:
    """Returns (left, top, size) in pixels for each thing of the scene."""
    side = min(scene.width, scene.height)
    left, top = (scene.width - side) // 2, (scene.height - side) // 2

    def centred(size: int) -> int:
        return (side - size) // 2 + rng.randint(-side // 12, side // 12)

    if len(scene.things) == 1:
        size = side * rng.randint(46, 64) // 100
        return [(left + centred(size), top + centred(size), size)]
    boxes = []
    leads = scene.relation in ("left of", "above")
    for in_first_half in (leads, not leads):
        size = side * rng.randint(38, 46) // 100
        along = rng.randint(0, side // 2 - size) + (0 if in_first_half else side // 2)
        across = centred(size)
        x, y = (along, across) if scene.relation in ("left of", "right of") else (across, along)
        boxes.append((left + x, top + y, size))
    return boxes


def _mask(shape: str, size: int) -> Image.Image:
    """Returns the shape as an L image of `size` x `size` pixels, 255 inside."""
    large = size * _OVERSAMPLING
    mask = Image.new("L", (large, large))
    draw = ImageDraw.Draw(mask)
    outline = _OUTLINES[shape]
    if outline is not None:
        draw.polygon([(x * (large - 1) // 1000, y * (large - 1) // 1000) for x, y in outline], fill=255)
    else:
        draw.ellipse((0, 0, large - 1, large - 1), fill=255)
    if shape == "ring":
        draw.ellipse((large // 4, large // 4, large - 1 - large // 4, large - 1 - large // 4), fill=0)
    return mask.reduce(_OVERSAMPLING)


def _tinted(colour: tuple[int, int, int], spread: int, rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, level + rng.randint(-spread, spread))) for level in colour)
    return red, green, blue


def _to_pixels(levels: Levels) -> npt.NDArray[np.uint8]:
    return np.clip(levels, 0, 255).astype(np.uint8)
