"""The whole chain against the bare encoder and against the usual way to write it; rows and cheap facts alone.

``python benchmarks/chain.py [PHOTOS]`` takes a folder with ``captions.jsonl`` and ``images/``; without one it
generates scenes. Both sides of a ratio take turns over the same documents, so that it compares like with like on a
noisy machine; the median of the turns counts. The model is a ViT-B/32 with random weights: its scores mean
nothing, what it costs is real.
"""

from __future__ import annotations

import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _machine import machine
from PIL import Image

from clipsieve import api, encoders, readers
from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Encoder
from clipsieve.core.decode import decode
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.demo.scenes import draw_scene, render
from clipsieve.engines.chunk import chunks
from clipsieve.plan import make_plan
from clipsieve.recipe import Recipe
from clipsieve.scorers import Blur, QrCode

# Clipsieve sets it where it loads a model; here torch comes first, and all sides shall have it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import AutoModel, CLIPProcessor

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"

DOCUMENTS = 48
IMAGES_A_DOCUMENT = 4  # Each with a paragraph of its own.
USUAL_DOCUMENTS = 2  # What the usual way, much slower, gets done of them in a turn.
THREADS = 2
TURNS = 5
BATCH_SIZES = (8, 16, 32)
RATIO_ROWS = 200_000
FACT_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Document:
    """Images as stored, and as many paragraphs."""

    images: list[bytes]
    paragraphs: list[str]


def documents(photos: Path) -> tuple[list[Document], str]:
    """Documents in which no paragraph comes twice, and what they are made of."""
    if (photos / "captions.jsonl").is_file():
        rows = [json.loads(line) for line in (photos / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
        # Five captions an image make two paragraphs: every photograph is used twice, in other company.
        parts = [
            ((photos / row["image"]).read_bytes(), ". ".join(row["captions"][first : first + 2]))
            for first in (0, 2)
            for row in rows
        ]
        made_of = "photographs of 640 x 480 and captions"
    else:
        rng = random.Random(0)
        parts = [scene_part(rng, number) for number in range(DOCUMENTS * IMAGES_A_DOCUMENT)]
        made_of = "generated scenes of 256 to 640 pixels and captions"
    grouped = [parts[i : i + IMAGES_A_DOCUMENT] for i in range(0, len(parts), IMAGES_A_DOCUMENT)][:DOCUMENTS]
    found = [Document(images=[i for i, _ in part], paragraphs=[text for _, text in part]) for part in grouped]
    return found, made_of


def scene_part(rng: random.Random, number: int) -> tuple[bytes, str]:
    scene = draw_scene(rng)
    file = io.BytesIO()
    render(scene).save(file, "JPEG", quality=90)
    return file.getvalue(), f"{number}: {scene.caption}, {scene.width} pixels wide and {scene.height} high"


def interleaved(columns: dict[str, Sequence[Any]]) -> pa.Table:
    """Rows of the interleaved schema; a column that is not given is null."""
    rows = len(columns["sample_id"])
    return pa.table(
        {f.name: pa.array(columns.get(f.name, [None] * rows), f.type) for f in INTERLEAVED_SCHEMA},
        schema=INTERLEAVED_SCHEMA,
    )


def write_documents(found: Sequence[Document], path: Path) -> None:
    parts = [
        (number, *part)
        for number, document in enumerate(found)
        for image, text in zip(document.images, document.paragraphs, strict=True)
        for part in (("text", text, None), ("image", None, image))
    ]
    numbers, modalities, texts, images = zip(*parts, strict=True)
    table = interleaved(
        {
            "sample_id": [f"document-{number}" for number in numbers],
            "position": [place % (2 * IMAGES_A_DOCUMENT) for place in range(len(parts))],
            "modality": modalities,
            "text_content": texts,
            "binary_content": images,
        }
    )
    pq.write_table(table, path)


def seconds(work: Callable[[], Any]) -> float:
    return timed(work).wall


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """What some work took, by the clock and of all cores; the latter hardly depends on what else the machine does."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


class Clock(api.Silent):
    """Times a run from the moment when its model is loaded to its last commit."""

    def __init__(self) -> None:
        self._start = (0.0, 0.0)
        self.taken = Seconds(wall=0.0, cpu=0.0)

    def start(self, shards: int, done: int) -> None:
        self._start = time.perf_counter(), time.process_time()

    def advance(self, images: int, shard_done: bool) -> None:
        wall, cpu = self._start
        self.taken = Seconds(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


class Bare:
    """The encoder alone, fed from memory with what the chain has to make first."""

    def __init__(self, encoder: Encoder, found: Sequence[Document]) -> None:
        self._encoder = encoder
        self._prepared = np.stack([encoder.prepare(decode(data)) for d in found for data in d.images])
        # By length, so that a batch pads little: the best that can be done for it.
        self._texts = sorted((text for d in found for text in d.paragraphs), key=len)
        self.image_batch = self._quickest(lambda size: self._images(size, 32))
        self.text_batch = self._quickest(lambda size: self._embed_texts(size, 32))

    def embed(self) -> None:
        self._images(self.image_batch, len(self._prepared))
        self._embed_texts(self.text_batch, len(self._texts))

    def _images(self, size: int, count: int) -> None:
        for start in range(0, count, size):
            self._encoder.images(self._prepared[start : start + size])

    def _embed_texts(self, size: int, count: int) -> None:
        for start in range(0, count, size):
            self._encoder.texts(self._texts[start : start + size])

    def _quickest(self, work: Callable[[int], None]) -> int:
        times = {size: [] for size in BATCH_SIZES}
        for _ in range(2):
            for size, taken in times.items():
                taken.append(seconds(lambda size=size: work(size)))
        return min(times, key=lambda size: min(times[size]))


class Usual:
    """The same scores as they are usually written: an image at a time, decoded anew for each score, on one core."""

    def __init__(self, model: Path, clip_threshold: float) -> None:
        self._model = AutoModel.from_pretrained(model).eval()
        self._processor = CLIPProcessor.from_pretrained(model)
        self._clip_threshold = clip_threshold

    def verdicts(self, document: Document) -> list[str]:
        """``kept`` or ``dropped``, an image."""
        words = sum(len(text.split()) for text in document.paragraphs)
        ratio = len(document.images) / max(words, 1)
        return [
            "kept"
            if self._blur(data) >= 100
            and self._code(data) <= 0.05
            and 0.001 <= ratio <= 0.1
            and self._clip_score(data, document.paragraphs) >= self._clip_threshold
            else "dropped"
            for data in document.images
        ]

    def _open(self, data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")

    def _blur(self, data: bytes) -> float:
        return float(cv2.Laplacian(np.array(self._open(data)), cv2.CV_64F).var())

    def _code(self, data: bytes) -> float:
        pixels = np.array(self._open(data))
        found, _, corners, _ = cv2.QRCodeDetector().detectAndDecodeMulti(pixels)
        return max(map(cv2.contourArea, corners)) / pixels[..., 0].size if found else 0.0

    @torch.inference_mode()
    def _clip_score(self, data: bytes, texts: list[str]) -> float:
        inputs = self._processor(
            text=texts, images=self._open(data), return_tensors="pt", padding=True, truncation=True
        )
        output = self._model(**inputs)
        return float((output.image_embeds @ output.text_embeds.T).max())


class Chain:
    """The documents through the public interface, into a run folder of its own each time."""

    def __init__(self, source: Path, model: Path, folder: Path) -> None:
        self._source = source
        self._model = model
        self._folder = folder
        self._runs = 0

    def run(self, clip_threshold: float | None) -> tuple[api.Run, Seconds]:
        self._runs += 1
        clock = Clock()
        keep = ["blur >= 100", "qr_code <= 0.05", "0.001 <= image_text_ratio <= 0.1"]
        keep += [] if clip_threshold is None else [f"clip_score >= {clip_threshold}"]
        run = api.run(
            read=str(self._source),
            model=str(self._model),
            keep=keep,
            scores={"clip_score": {}},
            score_all=True,
            precision="fp32",
            device="cpu",
            out=self._folder / f"run{self._runs}",
            progress=clock,
        )
        return run, clock.taken


def whole_chain(found: Sequence[Document], model: Path, folder: Path) -> dict[str, Any]:
    source = folder / "documents.parquet"
    write_documents(found, source)
    encoder = encoders.load(str(model), device="cpu", precision="fp32")
    bare = Bare(encoder, found)
    chain = Chain(source, model, folder)
    # A first run warms up, and its median makes a threshold that parts the images.
    warm, _ = chain.run(None)
    scores = warm.ledger["clip_score"].to_numpy()
    threshold = round(float(np.median(scores)), 3)
    usual = Usual(model, threshold)
    images = len(scores)
    turns: list[dict[str, float]] = []
    agreeing = compared = 0
    for turn in range(TURNS):
        bare_taken = timed(bare.embed)
        run, chain_taken = chain.run(threshold)
        some = range(turn * USUAL_DOCUMENTS, (turn + 1) * USUAL_DOCUMENTS)
        torch.set_num_threads(1)
        start = time.perf_counter()
        expected = [verdict for number in some for verdict in usual.verdicts(found[number])]
        usual_seconds = (time.perf_counter() - start) / len(expected)
        torch.set_num_threads(THREADS)
        first = some.start * IMAGES_A_DOCUMENT
        given = run.ledger["verdict"].to_pylist()[first : first + len(expected)]
        agreeing += sum(a == b for a, b in zip(given, expected, strict=True))
        compared += len(expected)
        turns.append(
            {
                "bare": bare_taken.wall / images,
                "chain": chain_taken.wall / images,
                "usual": usual_seconds,
                "bare_cpu": bare_taken.cpu / images,
                "chain_cpu": chain_taken.cpu / images,
            }
        )
    work = image_work(found, encoder)
    medians = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    return {
        "images": images,
        "bare encoder": {
            "images a second": round(1 / medians["bare"], 2),
            "best batch": {"images": bare.image_batch, "texts": bare.text_batch},
        },
        "chain": {
            "images a second": round(1 / medians["chain"], 2),
            "of the bare encoder": round(statistics.median(t["bare"] / t["chain"] for t in turns), 3),
            "in each turn": [round(t["bare"] / t["chain"], 3) for t in turns],
            "of the bare encoder, by CPU time": round(
                statistics.median(t["bare_cpu"] / t["chain_cpu"] for t in turns), 3
            ),
        },
        "usual way, one core": {
            "images a second": round(1 / medians["usual"], 2),
            "chain is faster by": round(statistics.median(t["usual"] / t["chain"] for t in turns), 2),
            "same verdicts": f"{agreeing} of {compared}",
        },
        "bound by": f"the encoder: the cores also spend {work * 1e3:.1f} ms an image on decoding, pixel scores and "
        f"the model's input, {work / THREADS / medians['bare']:.0%} of what the encoder takes",
    }


def image_work(found: Sequence[Document], encoder: Encoder) -> float:
    """Seconds one core needs for an image before the model: decode, blur, QR code, the model's input."""
    images = [data for document in found for data in document.images][:48]

    def work() -> None:
        for data in images:
            one = Batch.from_lists([data], encoder=encoder)
            Blur().score(one), QrCode().score(one), one.prepared

    return statistics.median(seconds(work) for _ in range(TURNS)) / len(images)


def ratio_alone(folder: Path) -> dict[str, Any]:
    """Interleaved rows from Parquet to verdicts by the ratio rule, no image opened."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(997)]
    reference = json.dumps({"path": "images.tar", "member": "photo.jpg", "byte_offset": 512, "byte_size": 100_000})
    rows = range(RATIO_ROWS)
    path = folder / "ratio.parquet"
    columns: dict[str, Sequence[Any]] = {
        "sample_id": [str(row // 10) for row in rows],
        "position": [row % 10 for row in rows],
        "modality": ["text", "image"] * (RATIO_ROWS // 2),
        "text_content": [" ".join(rng.choices(words, k=60)) if row % 2 == 0 else None for row in rows],
        "source_ref": [None if row % 2 == 0 else reference for row in rows],
    }
    pq.write_table(interleaved(columns), path)
    plan = make_plan(
        Recipe.build({"read": str(path), "keep": ["0.001 <= image_text_ratio <= 0.1"], "check": "header"}),
        "interleaved",
    )

    def read() -> Iterator[Batch]:
        reader = readers.open_source(str(path))
        for shard in reader.shards():
            yield reader.read(shard), reader.layout

    def judge() -> None:
        for rows, layout in read():
            for chunk in chunks(plan, 0, Batch.from_rows(rows, layout)):
                chunk.score_rows()
                chunk.finish()

    return rate("rows", RATIO_ROWS, judge, lambda: list(read()), "reading Parquet")


def facts_alone(found: Sequence[Document], folder: Path) -> dict[str, Any]:
    """JSON lines to JSON lines with what rows and headers tell, no image decoded."""
    images = [data for document in found for data in document.images]
    paragraphs = [text for document in found for text in document.paragraphs]
    for number, data in enumerate(images):
        (folder / f"{number:04d}.jpg").write_bytes(data)
    path = folder / "facts.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(FACT_ROWS):
            cells = {"image": f"{row % len(images):04d}.jpg", "caption": f"{row} {paragraphs[row % len(paragraphs)]}"}
            file.write(json.dumps(cells) + "\n")
    runs = iter(range(100))

    def run() -> None:
        api.run(
            read=str(path),
            keep=["width >= 64", "file_bytes >= 1000", "words >= 3"],
            write="jsonl",
            check="header",
            out=folder / f"facts{next(runs)}",
        )

    def read() -> None:
        reader = readers.open_source(str(path))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for shard in reader.shards():
                sources = Batch.from_rows(reader.read(shard), reader.layout).parts.images
                for _ in pool.map(lambda source: source.read(), sources):
                    pass

    return rate("images", FACT_ROWS, run, read, "reading rows and image files")


def rate(unit: str, count: int, work: Callable[[], Any], part: Callable[[], Any], name: str) -> dict[str, Any]:
    """How many a second, and the share of the time that ``part``, done alone, would take."""
    turns = [(seconds(work), seconds(part)) for _ in range(TURNS)]
    share = statistics.median(alone / whole for whole, alone in turns)
    return {
        f"{unit} a second": round(count / statistics.median(whole for whole, _ in turns)),
        "of it": f"{share:.0%} {name}",
    }


def main() -> None:
    photos = Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOS
    torch.set_num_threads(THREADS)
    # One core means one: OpenCV would use them all for the usual way.
    cv2.setNumThreads(1)
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": {
            **machine("numpy", "opencv-python-headless", "pillow", "torch", "transformers"),
            "load at start": round(os.getloadavg()[0], 1),
        },
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "vit-b-32"
        subprocess.run([sys.executable, ROOT / "tools" / "make_random_clip.py", model], check=True, capture_output=True)
        found, results["documents"] = documents(photos)
        results["whole chain"] = whole_chain(found, model, folder)
        results["ratio rule alone, Parquet to verdicts"] = ratio_alone(folder)
        results["cheap facts, JSON lines to JSON lines"] = facts_alone(found, folder)
    print(json.dumps(results, indent=2))
    target = ROOT / "benchmarks" / "results" / f"{results['date']}-chain.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
