"""Trains the demonstration CLIP that ships in `clipsieve.encoders.demo_clip`, and measures it.

    python tools/train_demo_clip.py            # trains, measures, writes the model folder and its card
    python tools/train_demo_clip.py --check    # measures the folder as it is and prints the numbers as JSON

A training takes one data set, one model and one loss: scenes of `clipsieve.demo`, a CLIP of 1.2 million parameters, and
the usual contrastive loss, with three additions. Captions with one word changed and paragraphs that describe no scene
are further negatives, and a text that happens to be true of another image of the batch ("a red star") is no negative
of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from clipsieve.demo import CLIP_SCORE_THRESHOLD, generate
from clipsieve.demo.faults import encoded, with_qr_code
from clipsieve.demo.prose import paragraph
from clipsieve.demo.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing, draw_scene, render

MODEL_FOLDER = Path(__file__).resolve().parents[1] / "src/clipsieve/encoders/demo_clip"

IMAGE_SIDE = 64
PATCH = 16
CONTEXT = 77
SHORT_WORDS = 15  # The longest caption has 12.
VOCABULARY = 700
MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's CLIP; any other would do.
STD = (0.26862954, 0.26130258, 0.27577711)

SCENES = 24_000
BATCH = 64
FILLERS = 12
SEEING_STEPS = 2500  # On images alone, at a third of the cost: shapes are slow to see, captions help little before.
STEPS = 2400
WARM_UP = 50
PEAK_RATE = 1e-3

TEST_SCENES = 4096
CALIBRATION_SEEDS = (1001, 1002)
TEST_SEEDS = (2001, 2002, 2003)

THINGS = [Thing(colour=colour, shape=shape) for colour in COLOURS for shape in SHAPES]
PROMPTS = {
    "thing": ("a {colour} {shape}", "a photo of a {colour} {shape}"),
    "shape": ("a {shape}", "a photo of a {shape}"),
    "colour": ("something {colour}", "a photo of something {colour}"),
}


# ---- texts


def build_tokenizer() -> Tokenizer:
    """Learns a byte-level BPE from the generator's own texts: its words are single tokens, any other text is spelt.

    As in CLIP a text is lower case and stands between two marks. These have the two highest ids, so that the end of a
    text is found by its id and by `argmax` alike (transformers has used both).
    """
    rng = random.Random("tokenizer")
    corpus = [draw_scene(rng).caption for _ in range(4000)] + [paragraph(rng, words=40) for _ in range(2000)]
    corpus += ["a photo of something"] * 2000
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    start, end = ("<|startoftext|>", tokenizer.token_to_id("<|startoftext|>")), end_mark(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start[0]} $A {end[0]}", special_tokens=[start, end]
    )
    return tokenizer


def end_mark(tokenizer: Tokenizer) -> tuple[str, int]:
    return "<|endoftext|>", tokenizer.token_to_id("<|endoftext|>")


def tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Returns int64 ids of shape (texts, longest of them), cut to the context and padded, both with the end mark."""
    end = end_mark(tokenizer)[1]
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    cut = [row if len(row) <= CONTEXT else [*row[: CONTEXT - 1], end] for row in ids]
    longest = max(map(len, cut))
    return torch.tensor([row + [end] * (longest - len(row)) for row in cut])


@dataclass(frozen=True, kw_only=True)
class Description:
    """A text and what makes it true of a scene: having this `caption`, or showing one of these `things`.

    A prompt may mean one thing ("a red star") or more ("something red"); filler has neither and is never true.
    """

    text: str
    caption: str | None = None
    things: tuple[Thing, ...] = ()


def describe(scene: Scene, rng: random.Random) -> Description:
    """Draws a text that is true of a scene: its caption, a paragraph that begins with it, or a prompt."""
    share_of_prompts = 0.35 if len(scene.things) == 1 else 0.1
    if rng.random() < share_of_prompts:
        thing = rng.choice(scene.things)
        kind = rng.choice(tuple(PROMPTS))
        text = rng.choice(PROMPTS[kind]).format(colour=thing.colour, shape=thing.shape)
        meant = tuple(
            other
            for other in THINGS
            if (kind == "shape" or other.colour == thing.colour) and (kind == "colour" or other.shape == thing.shape)
        )
        return Description(text=text, things=meant)
    if rng.random() < 0.4:
        text = f"{scene.caption}. {paragraph(rng, words=rng.randint(10, 50))}"
        return Description(text=text, caption=scene.caption)
    return Description(text=scene.caption, caption=scene.caption)


def altered(scene: Scene, rng: random.Random) -> Description:
    """Returns the scene's caption with one colour or shape changed, which makes it wrong by one word."""
    place = rng.randrange(len(scene.things))
    thing = scene.things[place]
    if rng.random() < 0.6:
        other = replace(thing, shape=rng.choice([shape for shape in SHAPES if shape != thing.shape]))
    else:
        other = replace(thing, colour=rng.choice([colour for colour in COLOURS if colour != thing.colour]))
    caption = replace(scene, things=(*scene.things[:place], other, *scene.things[place + 1 :])).caption
    return Description(text=caption, caption=caption)


def holds(descriptions: Sequence[Description], scenes: Sequence[Scene]) -> torch.Tensor:
    """Returns bool of shape (scenes, descriptions): whether the text is true of the scene."""
    shown = torch.tensor([[float(thing in scene.things) for thing in THINGS] for scene in scenes])
    meant = torch.tensor([[float(thing in each.things) for thing in THINGS] for each in descriptions])
    captioned = torch.tensor([[each.caption == scene.caption for each in descriptions] for scene in scenes])
    return (shown @ meant.T > 0) | captioned


# ---- images


def prepared(image: Image.Image) -> np.ndarray:
    """Resizes the shortest edge to the model's side with Pillow's bicubic and crops the centre: uint8 (64, 64, 3)."""
    short = min(image.size)
    width, height = (int(IMAGE_SIDE * edge / short) for edge in image.size)
    left, top = (width - IMAGE_SIDE) // 2, (height - IMAGE_SIDE) // 2
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(small.crop((left, top, left + IMAGE_SIDE, top + IMAGE_SIDE)))


def example(name: str) -> tuple[Scene, np.ndarray]:
    """Draws and renders the scene of that name, as the demo's images come: recompressed, some with a small QR code."""
    rng = random.Random(name)
    scene = draw_scene(rng)
    image = render(scene)
    if rng.random() < 0.1:
        image, _ = with_qr_code(image, rng, area=rng.uniform(0.005, 0.04))
    if rng.random() < 0.5:
        image = Image.open(BytesIO(encoded(image, quality=rng.randint(60, 95))))
    return scene, prepared(image)


def examples(name: str, count: int) -> tuple[list[Scene], torch.Tensor]:
    """Returns the scenes and their prepared images, uint8 of shape (count, 3, 64, 64)."""
    names = [f"{name}/{number}" for number in range(count)]
    with ProcessPoolExecutor() as pool:
        scenes, images = zip(*pool.map(example, names, chunksize=100), strict=True)
    return list(scenes), torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def augmented(images: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Shifts a batch by up to two pixels and changes its brightness by up to a tenth."""
    x, y = rng.randint(0, 4), rng.randint(0, 4)
    padded = functional.pad(images.float(), (2, 2, 2, 2), mode="replicate")
    shifted = padded[:, :, y : y + IMAGE_SIDE, x : x + IMAGE_SIDE]
    return normalised((shifted * rng.uniform(0.9, 1.1)).clamp(0, 255))


# ---- training


def new_model(tokenizer: Tokenizer) -> CLIPModel:
    end = end_mark(tokenizer)[1]
    model = CLIPModel(
        CLIPConfig(
            projection_dim=64,
            text_config={
                "vocab_size": tokenizer.get_vocab_size(),
                "hidden_size": 96,
                "intermediate_size": 384,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "max_position_embeddings": CONTEXT,
                "projection_dim": 64,
                "bos_token_id": end - 1,
                "eos_token_id": end,
                "pad_token_id": end,
            },
            vision_config={
                "image_size": IMAGE_SIDE,
                "patch_size": PATCH,
                "hidden_size": 128,
                "intermediate_size": 512,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "projection_dim": 64,
            },
        )
    )
    with torch.no_grad():
        model.vision_model.embeddings.position_embedding.weight[1:] = waves(IMAGE_SIDE // PATCH)
    return model


def waves(side: int) -> torch.Tensor:
    """Returns sines and cosines of the row and column of each patch, of shape (side * side, 128).

    CLIP's own start is near zero and lets the layers see a bag of patches: colours are learnt, shapes are not.
    """
    angles = torch.arange(side)[:, None] / side * torch.linspace(0.5, 2, 32) * math.pi
    one_axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = one_axis.repeat_interleave(side, dim=0), one_axis.repeat(side, 1)
    return 0.3 * torch.cat([columns, rows], dim=1)


def image_vectors(model: CLIPModel, images: torch.Tensor) -> torch.Tensor:
    """Normalised pixels (n, 3, 64, 64) to unit vectors (n, 64)."""
    pooled = model.vision_model(pixel_values=images).pooler_output
    return functional.normalize(model.visual_projection(pooled), dim=-1)


def text_vectors(model: CLIPModel, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Texts to unit vectors (n, 64); short and long ones apart, so that captions are not padded to paragraphs."""
    is_long = [len(text.split()) > SHORT_WORDS for text in texts]
    order = sorted(range(len(texts)), key=is_long.__getitem__)
    shorts = len(texts) - sum(is_long)
    groups = [group for group in (order[:shorts], order[shorts:]) if group]
    pooled = [
        model.text_model(input_ids=tokens(tokenizer, [texts[n] for n in group])).pooler_output for group in groups
    ]
    vectors = functional.normalize(model.text_projection(torch.cat(pooled)), dim=-1)
    return vectors[torch.tensor(order).argsort()]


def contrast(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """The contrastive loss of each image with the text of its number; the texts beyond are negatives only.

    `true` (images, texts) says which text holds of which image; no image is driven away from a text that holds of it.
    """
    count = len(images)
    own = torch.arange(count)
    logits = (scale * images @ texts.T).masked_fill(true & ~torch.eye(*true.shape, dtype=torch.bool), -math.inf)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits[:, :count].T, own)) / 2


def rate(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a linear rise, then half a cosine down to a hundredth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP))) / 2


def train(tokenizer: Tokenizer, *, seed: int, steps: int) -> CLIPModel:
    """Teaches the image tower to tell shapes and colours, then both towers to match, without forgetting the first."""
    rng = random.Random(f"training {seed}")
    torch.manual_seed(seed)
    scenes, images = examples(f"training {seed}", SCENES)
    seen = torch.stack([shares(scene) for scene in scenes])
    model = new_model(tokenizer).train()
    naming = torch.nn.Linear(model.config.vision_config.hidden_size, len(SHAPES) + len(COLOURS))
    for stage, last in (("seeing", SEEING_STEPS), ("matching", steps)):
        learned = [*model.parameters(), *naming.parameters()]
        optimizer = torch.optim.AdamW(learned, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
        started = time.monotonic()
        for step in range(last):
            for group in optimizer.param_groups:
                group["lr"] = PEAK_RATE * rate(step, last)
            chosen = rng.sample(range(len(scenes)), BATCH)
            pooled = model.vision_model(pixel_values=augmented(images[chosen], rng)).pooler_output
            loss = unnamed(naming(pooled), seen[chosen])
            if stage == "matching":
                loss = loss + mismatch(model, tokenizer, pooled, [scenes[number] for number in chosen], rng)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(100))
            if step % 100 == 0:
                elapsed = time.monotonic() - started
                line = f"{stage}: step {step} of {last}, loss {loss.item():.3f}, {elapsed:.0f} s"
                print(line, file=sys.stderr, flush=True)
    return model.eval()


def shares(scene: Scene) -> torch.Tensor:
    """What a scene's things are, (16,): the share of each shape, then of each colour."""
    names = [*SHAPES, *COLOURS]
    counts = torch.zeros(len(names))
    for thing in scene.things:
        counts[names.index(thing.shape)] += 1 / len(scene.things)
        counts[names.index(thing.colour)] += 1 / len(scene.things)
    return counts


def unnamed(logits: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the shapes and of the colours that are named with those that are there."""
    parts = (len(SHAPES), len(COLOURS))
    pairs = zip(logits.split(parts, dim=1), seen.split(parts, dim=1), strict=True)
    return torch.stack([functional.cross_entropy(named, there) for named, there in pairs]).sum()


def mismatch(
    model: CLIPModel, tokenizer: Tokenizer, pooled: torch.Tensor, batch: Sequence[Scene], rng: random.Random
) -> torch.Tensor:
    """The contrastive loss of a batch with its descriptions, altered ones and filler."""
    descriptions = [describe(scene, rng) for scene in batch] + [altered(scene, rng) for scene in batch]
    descriptions += [Description(text=paragraph(rng, words=rng.randint(10, 60))) for _ in range(FILLERS)]
    return contrast(
        functional.normalize(model.visual_projection(pooled), dim=-1),
        text_vectors(model, tokenizer, [each.text for each in descriptions]),
        model.logit_scale.exp(),
        holds(descriptions, batch),
    )


# ---- measuring


@dataclass(frozen=True, kw_only=True)
class DemoClip:
    """The model with its tokenizer, as two functions from raw inputs to unit vectors."""

    model: CLIPModel
    tokenizer: Tokenizer

    @torch.inference_mode()
    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (n, 3, 64, 64) to (n, 64)."""
        return torch.cat([image_vectors(self.model, normalised(part)) for part in pixels.split(BATCH)])

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts to (n, 64)."""
        parts = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        return torch.cat([text_vectors(self.model, self.tokenizer, part) for part in parts])


def measure(clip: DemoClip) -> dict[str, float]:
    """Measures a model on scenes and data sets that its training never saw."""
    scenes, pixels = examples("test", TEST_SCENES)
    return {
        **matching_metrics(clip, scenes, pixels),
        **zero_shot_metrics(clip, scenes, pixels),
        **threshold_metrics(clip),
        "parameters": sum(each.numel() for each in clip.model.parameters()),
    }


def matching_metrics(clip: DemoClip, scenes: Sequence[Scene], pixels: torch.Tensor) -> dict[str, float]:
    """AUC of true against shuffled captions, and how often an image finds its caption among 256."""
    captions = [scene.caption for scene in scenes]
    images, texts = clip.images(pixels), clip.texts(captions)
    true = (images * texts).sum(1)
    differs = torch.tensor([here != before for here, before in zip(captions, captions[-1:] + captions, strict=False)])
    shuffled = (images * texts.roll(1, 0)).sum(1)[differs]
    hits = []
    for start in range(0, len(scenes), 256):
        part = slice(start, start + 256)
        best = (images[part] @ texts[part].T).argmax(1)
        hits += [captions[start + own] == captions[start + int(found)] for own, found in enumerate(best)]
    return {"auc": float((true[:, None] > shuffled).double().mean()), "top1_of_256": float(np.mean(hits))}


def zero_shot_metrics(clip: DemoClip, scenes: Sequence[Scene], pixels: torch.Tensor) -> dict[str, float]:
    """Accuracy of naming the colour, the shape, or both, of scenes of one thing, a figure per template."""
    singles = [number for number, scene in enumerate(scenes) if len(scene.things) == 1]
    images = clip.images(pixels[singles])
    name_of: dict[str, Callable[[Thing], str]] = {
        "thing": lambda thing: f"{thing.colour} {thing.shape}",
        "shape": lambda thing: thing.shape,
        "colour": lambda thing: thing.colour,
    }
    found = {}
    for kind, templates in PROMPTS.items():
        labels = {name_of[kind](thing): thing for thing in THINGS}
        right = [name_of[kind](scenes[number].things[0]) for number in singles]
        for template in templates:
            texts = [template.format(colour=thing.colour, shape=thing.shape) for thing in labels.values()]
            named = [list(labels)[best] for best in (images @ clip.texts(texts).T).argmax(1).tolist()]
            found[template] = float(np.mean([one == other for one, other in zip(named, right, strict=True)]))
    return found


def threshold_metrics(clip: DemoClip) -> dict[str, float]:
    """What `CLIP_SCORE_THRESHOLD` does on the test seeds, and the threshold that the calibration seeds suggest.

    The suggestion lies midway between the scores that 1 % of the clean images stay below and 1 % of the wrongly
    captioned ones exceed.
    """
    calibration = [clip_scores(clip, seed) for seed in CALIBRATION_SEEDS]
    low = np.percentile(np.concatenate([clean for clean, _ in calibration]), 1)
    high = np.percentile(np.concatenate([wrong for _, wrong in calibration]), 99)
    test = [clip_scores(clip, seed) for seed in TEST_SEEDS]
    return {
        "suggested_threshold": float((low + high) / 2),
        "clean_kept": min(float((clean >= CLIP_SCORE_THRESHOLD).mean()) for clean, _ in test),
        "wrong_caption_dropped": min(float((wrong < CLIP_SCORE_THRESHOLD).mean()) for _, wrong in test),
    }


def clip_scores(clip: DemoClip, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Generates the demo data of a seed; returns the scores of its undamaged images: clean ones, wrongly captioned."""
    with tempfile.TemporaryDirectory() as name:
        truth = {(row["sample_id"], row["image"]): row for row in generate(Path(name), seed=seed)}
        samples = [*read_documents(Path(name)), *read_pairs(Path(name))]
    scores: dict[str | None, list[float]] = {None: [], "wrong_caption": []}
    for sample_id, texts, images in samples:
        chosen = [
            (row, data) for number, data in enumerate(images) if (row := truth[sample_id, number])["fault"] in scores
        ]
        if chosen:
            pixels = np.stack([prepared(Image.open(BytesIO(data)).convert("RGB")) for _, data in chosen])
            vectors = clip.images(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            best = (vectors @ clip.texts(texts).T).max(1).values.tolist()
            for (row, _), score in zip(chosen, best, strict=True):
                scores[row["fault"]].append(score)
    return np.array(scores[None]), np.array(scores["wrong_caption"])


def read_documents(folder: Path) -> Iterator[tuple[str, list[str], list[bytes]]]:
    """Yields the sample id, the texts and the encoded images of each document."""
    rows = pq.read_table(folder / "documents.parquet").to_pylist()
    for sample_id, group in itertools.groupby(rows, lambda row: row["sample_id"]):
        parts = list(group)
        texts = [row["text_content"] for row in parts if row["modality"] == "text"]
        yield sample_id, texts, [row["binary_content"] for row in parts if row["modality"] == "image"]


def read_pairs(folder: Path) -> Iterator[tuple[str, list[str], list[bytes]]]:
    """Yields the id, the caption and the encoded image of each pair whose image is there."""
    for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if (folder / row["image"]).exists():
            yield row["id"], [row["caption"]], [(folder / row["image"]).read_bytes()]


# ---- the folder


def save(clip: DemoClip, folder: Path) -> None:
    """Writes an ordinary Hugging Face folder, which transformers 4.5x and 5 load without any code of ours."""
    clip.model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # It is written for its owner alone, and packages keep modes.
    clip.tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "add_prefix_space": True,  # transformers 4.5x otherwise undoes what tokenizer.json says.
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        },
    )
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": IMAGE_SIDE},
            "resample": int(Image.Resampling.BICUBIC),
            "do_center_crop": True,
            "crop_size": {"height": IMAGE_SIDE, "width": IMAGE_SIDE},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": MEAN,
            "image_std": STD,
        },
    )


def load(folder: Path) -> DemoClip:
    model = CLIPModel.from_pretrained(folder, local_files_only=True)
    return DemoClip(model=model.eval(), tokenizer=Tokenizer.from_file(str(folder / "tokenizer.json")))


def write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---

# The demonstration CLIP of Clipsieve

**A demonstration model.** It knows one world, the scenes that `clipsieve.demo` generates: {shapes}
in {colours}, one or two of them on a {backgrounds} background. It makes the demo and the tests run without a
download. On photographs and ordinary captions its scores mean nothing: use a real CLIP there.

It is an ordinary `transformers` CLIP of {parameters:,} parameters: images of {side} pixels in patches of {patch},
vision 4 x 128, text 2 x 96 with {context} tokens of context, 64 dimensions. Its tokenizer knows the words of the
generator and spells any other text in bytes.

## Numbers

On scenes and data sets that its training never saw, as `python tools/train_demo_clip.py --check` prints them:

| measure | value |
| --- | --- |
{numbers}

* `auc` tells true from shuffled captions and `top1_of_256` finds the caption of an image among 256, over {scenes:,}
  scenes.
* A prompt stands for the accuracy of zero-shot labels made from it, on scenes of one thing: {things} labels for a
  colour and a shape, 8 for a colour or a shape alone. Other wordings work less well.
* `clean_kept` and `wrong_caption_dropped` are for the rule `clip_score >= {threshold}` on the demo data, where the
  score of an image is its highest cosine to any text of its sample. Each is the lowest of the seeds {test_seeds}.
* `suggested_threshold` comes from the seeds {calibration_seeds}, apart from training and test.

## Limits

* Whether it tells left from right, or which of two things has which colour, was not measured.
* Its vectors lie close together: unrelated scenes often have a cosine above 0.9, so it is no model to find near
  duplicates with at the usual threshold.
* A paragraph counts by its beginning: the training saw captions only at the start of a text.
* Two different scenes with the same caption get nearly the same vector.

## Training

`python tools/train_demo_clip.py --seed {seed} --threads {threads}`, {minutes:.0f} minutes: batches of {batch} scenes
out of {training_scenes:,}. For {seeing} steps the image tower learns to name shapes and colours, for {steps} more both
towers learn to match as well, by a contrastive loss with altered captions and paragraphs of filler as further
negatives. Its data is generated: no image and no text of other people is in it.
"""


def card(found: dict[str, float], *, seed: int, steps: int, seconds: float) -> str:
    return CARD.format(
        shapes=", ".join(f"{shape}s" if shape != "cross" else "crosses" for shape in SHAPES),
        colours=", ".join(COLOURS),
        backgrounds=", ".join(BACKGROUNDS),
        parameters=int(found["parameters"]),
        side=IMAGE_SIDE,
        patch=PATCH,
        context=CONTEXT,
        numbers="\n".join(f"| `{name}` | {value:.4g} |" for name, value in found.items() if name != "parameters"),
        scenes=TEST_SCENES,
        things=len(THINGS),
        threshold=CLIP_SCORE_THRESHOLD,
        test_seeds=", ".join(map(str, TEST_SEEDS)),
        calibration_seeds=" and ".join(map(str, CALIBRATION_SEEDS)),
        seed=seed,
        steps=steps,
        seeing=SEEING_STEPS,
        batch=BATCH,
        training_scenes=SCENES,
        minutes=seconds / 60,
        threads=torch.get_num_threads(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure the folder as it is, train nothing")
    parser.add_argument("--folder", type=Path, default=MODEL_FOLDER, help="the model folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2, help="of torch; the last digits of the weights depend on it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.check:
        print(json.dumps(measure(load(arguments.folder)), indent=2))
        return
    started = time.monotonic()
    tokenizer = build_tokenizer()
    model = train(tokenizer, seed=arguments.seed, steps=arguments.steps)
    seconds = time.monotonic() - started
    clip = DemoClip(model=model, tokenizer=tokenizer)
    save(clip, arguments.folder)
    found = measure(clip)
    text = card(found, seed=arguments.seed, steps=arguments.steps, seconds=seconds)
    (arguments.folder / "README.md").write_text(text, encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
