"""The drop-ins beside a plain implementation of the same published description, and beside the model alone.

``python benchmarks/dropin.py [--photos FOLDER] [--small] [--only NAME ...]``; ``FOLDER`` holds ``captions.jsonl`` and
``images/``, and without it scenes are generated. ``--small`` is a try on few rows; it and ``--only`` write no result.

Each plain implementation does what the description says in the plainest way: an image, row, sample or document at a
time, decoded anew by every stage that needs it, with transformers' own processor and model. The towers alone get the
same inputs, prepared before the clock starts, in batches of the size that proved best: what embedding the rows costs
at least. All sides work in fp32 on the CPU with as many threads as torch takes by itself, take turns, and the median
of the turns counts; that they keep the same rows is checked. The model is a ViT-B/32 with random weights: its scores
mean nothing, what it costs is real.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

# chain sets how threads wait before torch comes, for all sides.
from chain import PHOTOS, ROOT, Seconds, documents, scene_part, seconds, timed, write_documents  # isort: skip
import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
import zxingcpp
from _machine import machine
from datasets import Dataset, disable_progress_bars
from duplicates import THRESHOLD as DEDUP_THRESHOLD
from duplicates import memory, middle, planted, rounded
from PIL import Image
from transformers import AutoModel, CLIPProcessor
from transformers.utils import logging

from clipsieve.api.memory import Curated, curate

BATCH_SIZES = (8, 16, 32, 64)
CLOSE = 1e-4
"""Scores of two implementations may differ by so much, and verdicts where a score is that close to its threshold."""

BLUR, QR_CODE, RATIO = 100.0, 0.05, (0.001, 0.1)
MAP_BATCH = 1000
"""Samples that ``datasets.map`` gives at once when it is not told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured."""

    documents: int = 24
    rows: int = 128
    pairs: int = 48
    vectors: int = 20_000
    turns: int = 3


SMALL = Size(documents=4, rows=24, pairs=8, vectors=3_000, turns=1)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Images in files, as bytes, and a caption for each that none of the others has."""

    paths: list[str]
    images: list[bytes]
    texts: list[str]


# ---- What all sides share


def in_turns(turns: int, sides: Mapping[str, Callable[[], Any]]) -> tuple[list[dict[str, Seconds]], dict[str, Any]]:
    """What each side took, turn by turn, and what it gave in the last one."""
    given: dict[str, Any] = {}
    taken: list[dict[str, Seconds]] = []
    for _ in range(turns):
        taken.append({})
        for name, work in sides.items():
            taken[-1][name] = timed(lambda name=name, work=work: given.update({name: work()}))
    return taken, given


def rate(taken: Sequence[Mapping[str, Seconds]], side: str, count: int) -> float:
    return rounded(count / statistics.median(turn[side].wall for turn in taken))


def faster(taken: Sequence[Mapping[str, Seconds]], side: str, than: str) -> dict[str, Any]:
    """How many times as fast ``side`` is: the median by the clock, turn by turn, and by the time of all cores, which
    hardly depends on what else the machine does."""
    ratios = [turn[than].wall / turn[side].wall for turn in taken]
    cpu = statistics.median(turn[than].cpu / turn[side].cpu for turn in taken)
    return {
        "median": rounded(statistics.median(ratios)),
        "in each turn": [rounded(ratio) for ratio in ratios],
        "by CPU time": rounded(cpu),
    }


def same(kept: Mapping[Any, bool], plain: Mapping[Any, bool], scores: Mapping[Any, float], threshold: float) -> str:
    """Holds verdicts against those of the plain way. Exits where they differ though no score is at the threshold."""
    if kept.keys() != plain.keys():
        sys.exit(f"the sides judged different rows: {len(kept)} and {len(plain)}")
    differ = [key for key, stays in kept.items() if stays != plain[key]]
    if wrong := [key for key in differ if abs(scores[key] - threshold) > CLOSE]:
        sys.exit(f"{len(wrong)} verdicts differ, such as {wrong[0]}: score {scores[wrong[0]]}, threshold {threshold}")
    at = f", {len(differ)} of them otherwise within {CLOSE} of the threshold" if differ else ""
    return f"{sum(plain.values())} of {len(plain)} kept by both{at}"


def features(output: Any) -> torch.Tensor:
    """Unit vectors of a tower: transformers 4 returns them as they are, transformers 5 in an output object."""
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)


def opened(image: bytes | str) -> Image.Image:
    return Image.open(io.BytesIO(image) if isinstance(image, bytes) else image).convert("RGB")


class Towers:
    """The model's two towers, fed with what is prepared for them in batches of the best size, and nothing else."""

    def __init__(self, model: Any, processor: Any, rows: Rows) -> None:
        self._model = model
        self._pixels = torch.cat(
            [processor(images=opened(data), return_tensors="pt")["pixel_values"] for data in rows.images]
        )
        # By length, so that a batch pads little: the best that can be done for it.
        self._order = sorted(range(len(rows.texts)), key=lambda row: len(rows.texts[row]))
        texts = [rows.texts[row] for row in self._order]
        self._tokens = {
            size: [
                processor.tokenizer(texts[start : start + size], padding=True, truncation=True, return_tensors="pt")
                for start in range(0, len(texts), size)
            ]
            for size in BATCH_SIZES
        }
        self.image_batch = self._quickest(lambda size: self.images(size=size, count=64))
        self.text_batch = self._quickest(lambda size: self.texts(size=size, count=64))

    @torch.inference_mode()
    def images(self, *, count: int | None = None, size: int = 0) -> npt.NDArray[np.float32]:
        size, pixels = size or self.image_batch, self._pixels[:count]
        parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        return torch.cat([features(self._model.get_image_features(pixel_values=part)) for part in parts]).numpy()

    @torch.inference_mode()
    def texts(self, *, count: int | None = None, size: int = 0) -> npt.NDArray[np.float32]:
        size = size or self.text_batch
        parts = self._tokens[size][: None if count is None else max(count // size, 1)]
        found = torch.cat([features(self._model.get_text_features(**part)) for part in parts]).numpy()
        return found[np.argsort(self._order)] if count is None else found

    def _quickest(self, work: Callable[[int], Any]) -> int:
        times: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
        for _ in range(2):
            for size, taken in times.items():
                taken.append(seconds(lambda size=size: work(size)))
        return min(times, key=lambda size: min(times[size]))


def loaded(path: Path) -> tuple[Any, Any]:
    """transformers' own model and processor."""
    return AutoModel.from_pretrained(path).eval(), CLIPProcessor.from_pretrained(path)


def captioned(photos: Path, count: int, folder: Path) -> Rows:
    """So many photographs, some of them with more than one of their captions, or generated scenes."""
    if (photos / "captions.jsonl").is_file():
        rows = [json.loads(line) for line in (photos / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
        by_caption = {row["captions"][place]: row["image"] for place in range(5) for row in rows}
        parts = [((photos / image).read_bytes(), caption) for caption, image in by_caption.items()][:count]
    else:
        rng = random.Random(0)
        parts = [scene_part(rng, number) for number in range(count)]
    if len(parts) < count:
        sys.exit(f"{photos} has {len(parts)} captions; {count} are needed")
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for path, (data, _) in zip(paths, parts, strict=True):
        path.write_bytes(data)
    return Rows(paths=[str(path) for path in paths], images=[i for i, _ in parts], texts=[text for _, text in parts])


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How much is measured with which photographs, and what several parts need, made when first asked for."""

    size: Size
    photos: Path
    folder: Path

    @cached_property
    def model(self) -> Path:
        model = self.folder / "vit-b-32"
        command = [sys.executable, ROOT / "tools" / "make_random_clip.py", model]
        subprocess.run(command, check=True, capture_output=True)
        return model

    @cached_property
    def rows(self) -> Rows:
        return captioned(self.photos, self.size.rows, self.folder)

    @cached_property
    def towers(self) -> Towers:
        return Towers(*loaded(self.model), self.rows)


# ---- Interleaved documents: four filters in a row


def plain_blur(rows: pd.DataFrame) -> pd.DataFrame:
    """Keeps the images whose Laplacian varies enough."""

    def sharp(data: bytes) -> bool:
        return bool(cv2.Laplacian(np.array(opened(data)), cv2.CV_64F).var() >= BLUR)

    return remaining(rows, [modality != "image" or sharp(data) for modality, data in contents(rows)])


def plain_qr_code(rows: pd.DataFrame) -> pd.DataFrame:
    """Keeps the images whose largest code is small; codes are found by zxing-cpp, set as it is in Clipsieve."""

    def area(code: Any) -> float:
        place = code.position
        corners = (place.top_left, place.top_right, place.bottom_right, place.bottom_left)
        return float(cv2.contourArea(np.array([(corner.x, corner.y) for corner in corners], dtype=np.int32)))

    def covered(data: bytes) -> float:
        grey = cv2.cvtColor(np.array(opened(data)), cv2.COLOR_RGB2GRAY)
        codes = zxingcpp.read_barcodes(grey, formats=zxingcpp.BarcodeFormat.QRCode, return_errors=True)
        return max(map(area, codes), default=0.0) / grey.size

    return remaining(rows, [modality != "image" or covered(data) <= QR_CODE for modality, data in contents(rows)])


def plain_ratio(rows: pd.DataFrame) -> pd.DataFrame:
    """Keeps the documents with a fitting number of images a word."""
    words = rows["text_content"].fillna("").str.split().str.len().groupby(rows["sample_id"]).sum()
    images = (rows["modality"] == "image").groupby(rows["sample_id"]).sum()
    fits = (images / words.clip(lower=1)).between(*RATIO)
    return remaining(rows, rows["sample_id"].map(fits))


class PlainClipScore:
    """Keeps the images that are similar enough to a text of their document: a document at a time, or an image."""

    def __init__(self, model_path: Path, min_score: float, *, at_once: int | None) -> None:
        self._model, self._processor = loaded(model_path)
        self._min_score, self._at_once = min_score, at_once
        self.scores: dict[tuple[str, str], float] = {}

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        keep = pd.Series(True, index=rows.index)
        for name, document in rows.groupby("sample_id", sort=False):
            texts = document.loc[document["modality"] == "text", "text_content"].tolist()
            images = document.loc[document["modality"] == "image", "binary_content"]
            at_once = self._at_once or max(len(images), 1)
            parts = [images.iloc[start : start + at_once] for start in range(0, len(images), at_once)]
            found = [score for part in parts for score in self._of(part, texts)] if texts else [-1.0] * len(images)
            keep[images.index] = np.array(found) >= self._min_score
            self.scores |= {(str(name), digest(data)): score for data, score in zip(images, found, strict=True)}
        return remaining(rows, keep)

    @torch.inference_mode()
    def _of(self, images: Iterable[bytes], texts: list[str]) -> list[float]:
        inputs = self._processor(
            text=texts, images=list(map(opened, images)), padding=True, truncation=True, return_tensors="pt"
        )
        output = self._model(**inputs)
        scores: list[float] = (output.image_embeds @ output.text_embeds.T).max(dim=1).values.tolist()
        return scores


def contents(rows: pd.DataFrame) -> Iterable[tuple[str, bytes]]:
    return zip(rows["modality"], rows["binary_content"], strict=True)


def remaining(rows: pd.DataFrame, keep: Sequence[bool] | pd.Series) -> pd.DataFrame:
    """The rows to keep, without metadata of documents that hold nothing else, sorted and numbered anew."""
    rows = rows[np.asarray(keep, dtype=bool)].sort_values(["sample_id", "position"])
    content = rows["modality"] != "metadata"
    rows, content = (part[content.groupby(rows["sample_id"]).transform("any")] for part in (rows, content))
    position = content.groupby(rows["sample_id"]).cumsum() - 1
    return rows.assign(position=position.where(content, -1)).reset_index(drop=True)


def plain_tar(rows: pd.DataFrame, path: Path) -> None:
    """The documents as a WebDataset: ``KEY.json`` with the lists of texts and images, then the images."""
    with tarfile.open(path, "w") as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        for name, document in rows[rows["position"] >= 0].groupby("sample_id", sort=False):
            is_text = (document["modality"] == "text").tolist()
            members = [None if text else f"{name}.{place}.jpg" for place, text in enumerate(is_text)]
            texts = [text if is_text[i] else None for i, text in enumerate(document["text_content"])]
            add(f"{name}.json", json.dumps({"sample_id": name, "texts": texts, "images": members}).encode())
            for member, data in zip(members, document["binary_content"], strict=True):
                if member is not None:
                    add(member, data)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def written(folder: Path) -> dict[str, list[str]]:
    """Of each document in the tars of ``folder`` its texts and the digests of its images, in order."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for document in (json.loads(data) for name, data in members.items() if name.endswith(".json")):
            parts = zip(document["texts"], document["images"], strict=True)
            found[document["sample_id"]] = [
                text if image is None else digest(members[image]) for text, image in parts
            ]  # fmt: skip
    return found


def interleaved_filters(bench: Bench, folder: Path) -> dict[str, Any]:
    """Filters over the documents of a Parquet file, to a WebDataset; where there is a model, loading it is included."""
    from clipsieve.dropin import nemo_curator as curator

    every, made_of = documents(bench.photos)
    found = every[: bench.size.documents]
    source = folder / "documents.parquet"
    write_documents(found, source)
    everything = {(f"document-{i}", digest(data)) for i, document in enumerate(found) for data in document.images}
    # A first run over all of them warms up, and its median makes a threshold that parts the images.
    first = PlainClipScore(bench.model, -1, at_once=None)
    first(pd.read_parquet(source))
    min_score = round(float(np.median(list(first.scores.values()))), 3)
    counter = iter(range(100))

    def plain(*, clip: bool = True, at_once: int | None = None) -> Path:
        out = folder / f"plain{next(counter)}"
        out.mkdir()
        stages = [plain_blur, plain_qr_code, plain_ratio]
        frame = pd.read_parquet(source)
        for stage in [*stages, PlainClipScore(bench.model, min_score, at_once=at_once)] if clip else stages:
            frame = stage(frame)
        plain_tar(frame, out / "0.tar")
        return out

    def dropin(*, clip: bool = True) -> Path:
        out = folder / f"dropin{next(counter)}"
        pipeline = curator.Pipeline(name="interleaved_quality_filters")
        pipeline.add_stage(curator.InterleavedParquetReader(file_paths=str(source)))
        pipeline.add_stage(curator.InterleavedBlurFilterStage(score_threshold=BLUR))
        pipeline.add_stage(curator.InterleavedQRCodeFilterStage(score_threshold=QR_CODE))
        pipeline.add_stage(curator.InterleavedImageToTextRatioFilterStage(min_ratio=RATIO[0], max_ratio=RATIO[1]))
        if clip:
            pipeline.add_stage(curator.InterleavedCLIPScoreFilterStage(model_dir=str(bench.model), min_score=min_score))
        pipeline.add_stage(curator.InterleavedWebdatasetWriterStage(output_dir=str(out)))
        pipeline.run()
        return out

    def same_images(given: Path, expected: Path) -> str:
        outputs = written(given), written(expected)
        kept, plainly = ({key: key[1] in out.get(key[0], ()) for key in everything} for out in outputs)
        verdicts = same(kept, plainly, first.scores, min_score)
        if kept == plainly and outputs[0] != outputs[1]:
            sys.exit("the same images are kept, but texts or their order differ")
        return verdicts

    def told(sides: Mapping[str, Callable[[], Path]]) -> dict[str, Any]:
        taken, given = in_turns(bench.size.turns, sides)
        return {
            "images a second": {side: rate(taken, side, len(everything)) for side in sides},
            **{f"drop-in faster than {side}": faster(taken, "drop-in", side) for side in sides if side != "drop-in"},
            "same images": {side: same_images(given["drop-in"], given[side]) for side in sides if side != "drop-in"},
        }

    dropin()
    return {
        "documents": f"{len(found)}, {made_of}",
        "images": len(everything),
        "QR detector of both": "zxing-cpp",
        "blur, QR, ratio and CLIP score": told(
            {"drop-in": dropin, "plain": plain, "plain, CLIP an image at a time": lambda: plain(at_once=1)}
        ),
        "blur, QR and ratio": told({"drop-in": lambda: dropin(clip=False), "plain": lambda: plain(clip=False)}),
    }


# ---- Images with captions


def clip_filter(bench: Bench, folder: Path) -> dict[str, Any]:
    """The similarity of image and caption, JSON lines to JSON lines."""
    from clipsieve.dropin.dataflow import FileStorage, ImageClipFilter

    rows, towers = bench.rows, bench.towers
    source = folder / "captions.jsonl"
    table = pd.DataFrame({"id": range(len(rows.paths)), "image": rows.paths, "caption": rows.texts})
    table.to_json(source, orient="records", lines=True)
    threshold = round(max(float(np.median((towers.images() * towers.texts()).sum(axis=1))), 0.001), 3)
    model, processor = loaded(bench.model)
    operator = ImageClipFilter(model_name=str(bench.model), device="cpu")
    counter = iter(range(100))
    scores: dict[int, float] = {}

    @torch.inference_mode()
    def similarity(path: str, caption: str) -> float:
        inputs = processor(text=[caption], images=opened(path), padding=True, truncation=True, return_tensors="pt")
        output = model(**inputs)
        return float((output.image_embeds @ output.text_embeds.T).clamp(0, 1))

    def plain() -> list[int]:
        frame = pd.read_json(source, lines=True)
        found = [similarity(row["image"], row["caption"]) for _, row in frame.iterrows()]
        scores.update(zip(frame["id"], found, strict=True))
        frame = frame[[score >= threshold for score in found]].reset_index(drop=True)
        frame.to_json(folder / "plain.jsonl", orient="records", lines=True)
        return frame["id"].tolist()

    def dropin() -> list[int]:
        storage = FileStorage(
            first_entry_file_name=str(source), cache_path=str(folder / f"cache{next(counter)}"),
            file_name_prefix="filtered", cache_type="jsonl",
        )  # fmt: skip
        operator.run(storage.step(), input_image_key="image", input_caption_key="caption", threshold=threshold)
        return storage.step().read("dataframe")["id"].tolist()

    dropin()
    taken, kept = in_turns(
        bench.size.turns, {"towers": lambda: (towers.images(), towers.texts()), "drop-in": dropin, "plain": plain}
    )
    verdicts = same(*({row: row in kept[side] for row in scores} for side in ("drop-in", "plain")), scores, threshold)
    return {
        "rows": len(rows.paths),
        "best batch of the towers": {"images": towers.image_batch, "texts": towers.text_batch},
        "rows a second": {side: rate(taken, side, len(rows.paths)) for side in ("towers", "drop-in", "plain")},
        "drop-in's share of the towers' speed": faster(taken, "drop-in", "towers"),
        "drop-in faster than plain": faster(taken, "drop-in", "plain"),
        "same rows": verdicts,
    }


# ---- Samples of two images


def pair_filter(bench: Bench, folder: Path) -> dict[str, Any]:
    """The similarity of a sample's two images, through ``datasets.map`` and ``filter``."""
    from clipsieve.dropin.data_juicer import ImagePairSimilarityFilter

    disable_progress_bars()
    towers, images = bench.towers, 2 * bench.size.pairs
    pairs = [bench.rows.paths[i : i + 2] for i in range(0, images, 2)]
    data = Dataset.from_list([{"id": i, "text": f"pair {i}", "images": pair} for i, pair in enumerate(pairs)])
    data = data.add_column("__dj__stats__", [{}] * data.num_rows)
    vectors = towers.images(count=images)
    low = round(float(np.median((vectors[::2] * vectors[1::2]).sum(axis=1))), 3)
    model, processor = loaded(bench.model)
    operator = ImagePairSimilarityFilter(hf_clip=str(bench.model), any_or_all="any", min_score=low, max_score=1.0)
    counter = iter(range(1000))
    scores: dict[int, float] = {}

    @torch.inference_mode()
    def similarity(sample: dict[str, Any]) -> dict[str, Any]:
        first, second = (
            features(model.get_image_features(**processor(images=opened(path), return_tensors="pt")))
            for path in sample["images"]
        )
        scores[sample["id"]] = float((first * second).sum())
        return {**sample, "__dj__stats__": {"image_pair_similarity": [scores[sample["id"]]]}}

    def keeps(sample: dict[str, Any]) -> bool:
        return any(low <= score <= 1 for score in sample["__dj__stats__"]["image_pair_similarity"])

    def fresh() -> dict[str, Any]:
        # A name of its own, so that no side finds its result of before, and none hashes a model to make one.
        return {"new_fingerprint": f"turn{next(counter)}", "keep_in_memory": True}

    def plain() -> list[int]:
        return data.map(similarity, **fresh()).filter(keeps, **fresh())["id"]

    def single() -> list[int]:
        return data.map(operator.compute_stats, **fresh()).filter(operator.process, **fresh())["id"]

    def batched() -> list[int]:
        given = {"batched": True, "batch_size": MAP_BATCH}
        return data.map(operator.compute_stats, **given, **fresh()).filter(operator.process, **given, **fresh())["id"]

    batched()
    sides = {"towers": lambda: towers.images(count=images), "batched": batched, "single": single}
    taken, kept = in_turns(bench.size.turns, {**sides, "plain": plain})
    expected = {sample: sample in set(kept["plain"]) for sample in scores}
    for side in ("batched", "single"):
        verdicts = same({sample: sample in set(kept[side]) for sample in scores}, expected, scores, low)
    return {
        "samples": len(pairs),
        "best batch of the tower": towers.image_batch,
        "samples of a batch": MAP_BATCH,
        "samples a second": {side: rate(taken, side, len(pairs)) for side in (*sides, "plain")},
        "share of the image tower's speed": {side: faster(taken, side, "towers") for side in ("batched", "single")},
        "faster than plain": {side: faster(taken, side, "plain") for side in ("batched", "single")},
        "same samples": verdicts,
    }


# ---- Near duplicates


def deduplicate(bench: Bench, folder: Path) -> dict[str, Any]:
    """Near duplicates of given vectors, each search in a process of its own that tells its own peak of memory."""
    path = folder / "vectors.npy"
    planted(path, bench.size.vectors, isotropic=False)
    sides = ("drop-in", "matrix", "loop")
    turns = [{side: alone(path, side) for side in sides} for _ in range(bench.size.turns)]
    vectors = np.load(path)
    found = {side: np.load(path.with_name(f"{side}.npz")) for side in sides}
    removed = {side: found[side]["removed"] for side in sides}
    for side in sides[1:]:
        for row in np.flatnonzero(removed["drop-in"] != removed[side]).tolist():
            best = float(np.max(vectors[:row] @ vectors[row], initial=-1))
            if abs(best - DEDUP_THRESHOLD) > CLOSE:
                sys.exit(f"drop-in and {side} differ over vector {row}, whose nearest before it has {best}")
        kept = ~(removed["drop-in"] | removed[side])
        ours, theirs = (found[of]["similarity"][kept[~removed[of]]] for of in ("drop-in", side))
        if np.abs(ours - theirs).max() > CLOSE:
            sys.exit(f"drop-in and {side} name different highest similarities")
    told: dict[str, Any] = {"vectors": bench.size.vectors, "removed": int(removed["drop-in"].sum())}
    for side in sides:
        told[side] = middle([turn[side] for turn in turns])
    for side in sides[1:]:
        told[f"drop-in against {side}"] = {
            "times faster": rounded(median_ratio(turns, side, "seconds")),
            "times less memory": rounded(median_ratio(turns, side, "peak MB")),
            "times less memory beyond the start": rounded(median_ratio(turns, side, "MB beyond the start")),
        }
    return told


def median_ratio(turns: Sequence[Mapping[str, Mapping[str, float]]], side: str, of: str) -> float:
    return statistics.median(turn[side][of] / turn["drop-in"][of] for turn in turns)


def alone(path: Path, side: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--search", side, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def search(side: str, path: Path) -> dict[str, float]:
    """One search in this process, which has torch and transformers in its memory as one that embeds would."""
    vectors = np.load(path)
    frame = pd.DataFrame({"image": [f"{row}.jpg" for row in range(len(vectors))]})
    work = dropin_search(vectors, frame) if side == "drop-in" else lambda: plain_search(vectors, frame, side)
    kept = frame
    before = memory("VmRSS")

    def timed_work() -> None:
        nonlocal kept
        kept = work()

    taken = timed(timed_work)
    peak = memory("VmHWM")
    removed = ~frame["image"].isin(kept["image"]).to_numpy()
    np.savez(path.with_name(f"{side}.npz"), removed=removed, similarity=kept["max_similarity"])
    return {"seconds": taken.wall, "peak MB": peak / 1e6, "MB beyond the start": (peak - before) / 1e6}


def plain_search(vectors: npt.NDArray[np.float32], frame: pd.DataFrame, side: str) -> pd.DataFrame:
    """All cosines at once, then the pairs: ``loop`` goes through every one as described, ``matrix`` lets numpy."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    removed = np.zeros(len(vectors), dtype=bool)
    pairs = []
    if side == "loop":
        for first in range(len(vectors)):
            for second in range(first + 1, len(vectors)):
                if cosines[first, second] >= DEDUP_THRESHOLD:
                    pairs.append({"kept_idx": first, "removed_idx": second, "similarity": cosines[first, second]})
                    removed[second] = True
    else:
        for first, second in np.argwhere(np.triu(cosines >= DEDUP_THRESHOLD, k=1)).tolist():
            pairs.append({"kept_idx": first, "removed_idx": second, "similarity": cosines[first, second]})
            removed[second] = True
    return frame.assign(max_similarity=cosines.max(axis=1))[~removed].reset_index(drop=True)


def dropin_search(vectors: npt.NDArray[np.float32], frame: pd.DataFrame) -> Callable[[], pd.DataFrame]:
    """The drop-in over a table in memory, with the given vectors in place of what a model would make of images."""
    from clipsieve.dropin.dataflow import ImageDeduplicateFilter

    class Table:
        def read(self, output_type: str) -> pd.DataFrame:
            return frame

        def write(self, data: pd.DataFrame) -> None:
            self.kept = data

    numbers = pa.array(np.arange(len(vectors)))
    ledger = pa.table({"row": numbers, "error": pa.nulls(len(vectors), pa.string())})
    home = sys.modules[ImageDeduplicateFilter.__module__]
    assert home.curate is curate  # what embeds is called by that name, and replaced here
    home.curate = lambda *_, **__: Curated(rows=ledger, ledger=ledger, vectors=vectors, reasons=())  # type: ignore[attr-defined]
    operator = ImageDeduplicateFilter(model_name="demo", threshold=DEDUP_THRESHOLD, device="cpu")

    def work() -> pd.DataFrame:
        table = Table()
        operator.run(table)
        list(operator.duplicate_pairs)
        return table.kept

    return work


def main() -> None:
    parts = {
        "nemo_curator": interleaved_filters, "dataflow": clip_filter, "data_juicer": pair_filter,
        "deduplicate": deduplicate,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder with captions.jsonl and images/")
    parser.add_argument("--small", action="store_true", help="few rows, one turn, no result written")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), help="only these parts")
    parser.add_argument("--search", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.search:
        side, path = asked.search
        print(json.dumps(search(side, Path(path))))
        return
    logging.disable_progress_bar()
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": {
            **machine("datasets", "numpy", "pandas", "pillow", "torch", "transformers", "zxing-cpp"),
            "load at start": round(os.getloadavg()[0], 1),
        },
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(size=SMALL if asked.small else Size(), photos=asked.photos, folder=folder)
        for part in asked.only:
            place = folder / part
            place.mkdir()
            results[part] = parts[part](bench, place)
            print(part, json.dumps(results[part], indent=2), flush=True)
    if not asked.small and asked.only == list(parts):
        target = ROOT / "benchmarks" / "results" / f"{results['date']}-dropin.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(results, indent=2) + "\n")
        print(target.relative_to(ROOT))


if __name__ == "__main__":
    main()
