"""The encoder gives what transformers gives: pixels within one 8-bit level, vectors within 1e-4 in cosine."""

import random
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from clipsieve.core.embed import embed_texts
from clipsieve.encoders import load
from clipsieve.encoders.preprocess import read_preprocessing

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
PHOTO_FILES = [path for path in sorted(PHOTOS.rglob("*")) if path.suffix.lower() in {
    ".jpg", ".png", ".webp", ".gif", ".tif", ".mpo"
}]  # fmt: skip

SHAPES = [
    (1, 1), (1, 400), (400, 1), (2, 3), (100, 100), (300, 200), (200, 301), (450, 300), (223, 224), (224, 223),
    (224, 224), (224, 1000), (225, 1000), (1000, 225), (448, 448), (480, 640), (641, 479), (1201, 333),
]  # fmt: skip

WORD_COUNTS = [1, 2, 5, 20, 30, 36, 37, 38, 39, 40, 41, 42, 60, 75, 76, 77, 120, 200, 300]


class Reference:
    """What transformers does with the same folder."""

    def __init__(self, folder):
        self.processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()
        self.padding = "max_length" if self.model.config.model_type == "siglip" else True

    @torch.inference_mode()
    def images(self, images):
        """Pixels as 8-bit levels `(n, height, width, 3)`, and unit vectors."""
        inputs = self.processor(images, input_data_format="channels_last", return_tensors="pt")
        levels = (
            np.moveaxis(inputs["pixel_values"].numpy(), 1, -1) * self.processor.image_std + self.processor.image_mean
        )
        return np.rint(levels * 255).astype(int), features(self.model.get_image_features(**inputs))

    @torch.inference_mode()
    def text(self, text):
        inputs = self.tokenizer([text], padding=self.padding, truncation=True, return_tensors="pt")
        return features(self.model.get_text_features(**inputs))[0]


def features(output):
    vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
    return vectors.numpy() / np.linalg.norm(vectors.numpy(), axis=-1, keepdims=True)


def check_images(prepare, encode, reference, images):
    for start in range(0, len(images), 16):
        some = images[start : start + 16]
        ours = np.stack([prepare(rgb) for rgb in some])
        pixels, vectors = reference.images(some)
        for rgb, ours_of_it, theirs in zip(some, ours.astype(int), pixels, strict=True):
            assert abs(ours_of_it - theirs).max() <= 1, f"pixels of a {rgb.shape} image"
        assert abs(1 - (encode(ours) * vectors).sum(axis=1)).max() <= 1e-4


def opened(path):
    """The photograph as Pillow converts it; None for the few that are broken on purpose."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(Image.open(path).convert("RGB"))
    except OSError:
        return None


def drawn(height, width, seed=0):
    """A smooth picture with some noise: `(height, width, 3)` uint8."""
    rng = np.random.default_rng([seed, height, width])
    waves = np.indices((height, width)).sum(axis=0)[..., None] * rng.uniform(0.01, 0.3, 3)
    return (127 + 100 * np.sin(waves) + rng.uniform(-28, 28, (height, width, 3))).astype(np.uint8)


def words(count):
    rng = random.Random(count)
    return " ".join(
        rng.choice(["a", "red", "dog,", "mountain.", "unusual", "42", "naïve", "東京", "😀"]) for _ in range(count)
    )


@pytest.fixture(scope="module", params=["clip", "siglip"])
def pair(request, folders):
    folder = folders[request.param]
    return load(str(folder)), Reference(folder)


@pytest.mark.skipif(not PHOTO_FILES, reason="the photographs lie beside the repository, not in it")
def test_every_photograph(pair):
    encoder, reference = pair
    photos = [rgb for rgb in map(opened, PHOTO_FILES) if rgb is not None]
    assert len(photos) > 0.9 * len(PHOTO_FILES)
    check_images(encoder.prepare, encoder.images, reference, photos)


def test_odd_shapes(pair):
    encoder, reference = pair
    check_images(encoder.prepare, encoder.images, reference, [drawn(*shape) for shape in SHAPES])


def test_another_resize_filter_is_noticed(clip_folder):
    encoder, reference = load(str(clip_folder)), Reference(clip_folder)
    bilinear = replace(read_preprocessing(clip_folder, "clip"), resample=Image.Resampling.BILINEAR)
    images = [np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)]
    with pytest.raises(AssertionError, match="pixels of a"):
        check_images(bilinear.prepare, encoder.images, reference, images)
    _, vectors = reference.images(images)
    assert encoder.images(bilinear.prepare(images[0])[None]) @ vectors.T < 1 - 1e-4


@pytest.mark.parametrize("policy", ["truncate", "chunk-max", "chunk-mean"])
def test_texts_of_1_to_300_words(pair, policy):
    encoder, reference = pair
    texts = [words(count) for count in WORD_COUNTS]
    ours = embed_texts(encoder, texts, np.arange(len(texts)), policy)
    for sample, text in enumerate(texts):
        pieces = [text] if policy == "truncate" else encoder.windows(text)
        expected = np.stack([reference.text(piece) for piece in pieces])
        if policy == "chunk-mean":
            expected = expected.mean(axis=0, keepdims=True)
            expected /= np.linalg.norm(expected)
        found = ours.vectors[ours.samples == sample]
        assert found.shape == expected.shape
        assert abs(1 - (found * expected).sum(axis=1)).max() <= 1e-4


def test_full_vit_b_32(full_clip_folder):
    encoder, reference = load(str(full_clip_folder)), Reference(full_clip_folder)
    check_images(encoder.prepare, encoder.images, reference, [drawn(480, 640), drawn(300, 200), drawn(1, 9)])
    texts = [words(count) for count in (1, 12, 300)]
    expected = np.stack([reference.text(text) for text in texts])
    assert abs(1 - (encoder.texts(texts) * expected).sum(axis=1)).max() <= 1e-4


def test_a_vector_does_not_depend_on_its_batch(pair):
    encoder, _ = pair
    count = 17
    images = np.stack([encoder.prepare(drawn(90 + i, 200 - i, seed=i)) for i in range(count)])
    texts = [words(1 + 3 * i) for i in range(count)]
    for encode, inputs in ((encoder.images, images), (encoder.texts, texts)):
        alone = np.concatenate([encode(inputs[i : i + 1]) for i in range(count)])
        assert alone.dtype == np.float32
        assert np.allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)
        for size in (2, 5, count):
            batched = np.concatenate([encode(inputs[start : start + size]) for start in range(0, count, size)])
            assert abs(batched - alone).max() <= 1e-5
