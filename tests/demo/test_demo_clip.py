"""The demo model: an ordinary Hugging Face folder that knows the generated scenes well enough for the demo's rules."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

import clipsieve
from clipsieve.demo import CLIP_SCORE_THRESHOLD
from clipsieve.demo.prose import paragraph
from clipsieve.demo.scenes import COLOURS, SHAPES, Scene, draw_scene, render

FOLDER = Path(clipsieve.__file__).parent / "encoders" / "demo_clip"


class DemoClip:
    """The folder as any user of transformers loads it."""

    def __init__(self) -> None:
        self.model = CLIPModel.from_pretrained(FOLDER).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(FOLDER)
        self.processor = CLIPImageProcessor.from_pretrained(FOLDER)

    @torch.inference_mode()
    def logits(self, images: list[Image.Image], texts: list[str]) -> np.ndarray:
        """Cosines of shape (images, texts)."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        pixels = self.processor(images, return_tensors="pt")
        found = self.model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], **pixels)
        return (found.image_embeds @ found.text_embeds.T).numpy()


@pytest.fixture(scope="module")
def clip() -> DemoClip:
    return DemoClip()


def scenes(name: str, count: int, *, things: int | None = None) -> list[Scene]:
    rng = random.Random(name)
    drawn = (draw_scene(rng) for _ in range(100 * count))
    return [scene for scene in drawn if things in (None, len(scene.things))][:count]


def test_the_folder_is_small_and_safe() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 5_000_000
    assert {path.name for path in FOLDER.iterdir()} == {
        *("README.md", "config.json", "model.safetensors"),
        *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    }
    assert "**A demonstration model.**" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("text", ["A red star", "", "🎈 zwölf rote Bälle", "星と輪", "\x00 \ud7ff"])
def test_any_text_becomes_tokens_between_the_two_marks(clip: DemoClip, text: str) -> None:
    ids = clip.tokenizer(text)["input_ids"]
    assert ids[0] == clip.tokenizer.bos_token_id
    assert ids[-1] == clip.tokenizer.eos_token_id == clip.model.config.text_config.eos_token_id
    assert clip.tokenizer.decode(ids, skip_special_tokens=True).strip() == text.lower().strip()


def test_a_long_text_is_cut_to_the_context_and_keeps_its_end_mark(clip: DemoClip) -> None:
    ids = clip.tokenizer("a red star " * 300, truncation=True)["input_ids"]
    assert len(ids) == 77 == clip.model.config.text_config.max_position_embeddings
    assert ids.index(clip.tokenizer.eos_token_id) == 76


def test_padding_does_not_change_a_vector(clip: DemoClip) -> None:
    image = [render(scenes("padding", 1)[0])]
    alone = clip.logits(image, ["a red star"])
    beside = clip.logits(image, ["a red star", "a red star left of a blue ring on a white background"])
    np.testing.assert_allclose(alone[:, 0], beside[:, 0], atol=1e-5)


def test_images_find_their_captions_among_256(clip: DemoClip) -> None:
    unseen = scenes("test of captions", 256)
    cosines = clip.logits([render(scene) for scene in unseen], [scene.caption for scene in unseen])
    found = [unseen[best].caption == scene.caption for scene, best in zip(unseen, cosines.argmax(1), strict=True)]
    assert np.mean(found) >= 0.85


def test_colours_and_shapes_are_named_zero_shot(clip: DemoClip) -> None:
    unseen = scenes("test of labels", 200, things=1)
    images = [render(scene) for scene in unseen]
    for names, template, attribute in (
        (tuple(COLOURS), "a photo of something {}", "colour"),
        (SHAPES, "a photo of a {}", "shape"),
    ):
        best = clip.logits(images, [template.format(name) for name in names]).argmax(1)
        right = [names[one] == getattr(scene.things[0], attribute) for one, scene in zip(best, unseen, strict=True)]
        assert np.mean(right) >= 0.95, attribute


def test_the_threshold_parts_true_captions_from_those_of_others(clip: DemoClip) -> None:
    rng = random.Random("test of threshold")
    unseen = scenes("test of threshold", 200)
    images = [render(scene) for scene in unseen]
    true = [f"{scene.caption}. {paragraph(rng, words=30)}" for scene in unseen]
    false = [f"{draw_scene(rng, avoid=scene.things).caption}. {paragraph(rng, words=30)}" for scene in unseen]
    filler = [paragraph(rng, words=30) for _ in unseen]
    assert (np.diag(clip.logits(images, true)) >= CLIP_SCORE_THRESHOLD).mean() >= 0.97
    assert (np.diag(clip.logits(images, false)) < CLIP_SCORE_THRESHOLD).mean() >= 0.97
    assert (np.diag(clip.logits(images, filler)) < CLIP_SCORE_THRESHOLD).mean() >= 0.99
