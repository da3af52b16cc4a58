"""Hashes: equal files have one content hash; an image that was merely treated keeps most bits of its perceptual one."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from clipsieve import ContentHash, PerceptualHash
from clipsieve.scorers.perceptual_hash import dct_hash


def scene(seed: int) -> Image.Image:
    """A picture with structure at several sizes, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((240, 180), 3)) / 3
        for n in (3, 6, 20)
    ]
    return Image.fromarray(np.sum(layers, axis=0).astype(np.uint8))


def bits(one: Image.Image, other: Image.Image) -> int:
    return (dct_hash(np.asarray(one)) ^ dct_hash(np.asarray(other))).bit_count()


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


TREATED = {
    "smaller": lambda image: image.resize((120, 90)),
    "larger": lambda image: image.resize((480, 360)),
    "recompressed": lambda image: jpeg(image, 30),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "softer": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("treatment", TREATED)
def test_a_treated_image_keeps_nearly_all_bits(treatment: str) -> None:
    for seed in range(20):
        assert bits(scene(seed), TREATED[treatment](scene(seed))) <= 4


def test_other_images_differ_in_about_half_of_the_bits() -> None:
    distances = [bits(scene(seed), scene(seed + 1)) for seed in range(40)]
    assert min(distances) > 12
    assert 28 < np.mean(distances) < 36


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_plain_image_has_a_hash_that_noise_of_the_arithmetic_does_not_decide(value: int) -> None:
    plain = np.full((50, 70, 3), value, dtype=np.uint8)
    assert dct_hash(plain) == (1 << 63 if value else 0)


def test_half_the_bits_are_set_in_any_image_with_structure() -> None:
    assert {dct_hash(np.asarray(scene(seed))).bit_count() for seed in range(10)} == {32}


def test_they_are_texts_and_none_where_there_is_nothing_to_hash() -> None:
    file = io.BytesIO()
    scene(0).save(file, "PNG")
    images = [file.getvalue(), file.getvalue()[:9], np.asarray(scene(0))]
    perceptual = PerceptualHash()(images)["perceptual_hash"]
    assert perceptual[0] == f"{dct_hash(np.asarray(scene(0))):016x}" == perceptual[2]
    assert perceptual[1] is None
    content = ContentHash()(images)["content_hash"]
    assert content.tolist() == [hashlib.sha256(images[0]).hexdigest(), hashlib.sha256(images[1]).hexdigest(), None]
