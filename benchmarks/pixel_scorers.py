"""Blur and QR codes against the usual way to compute them, and the cheap scorers' own cost.

``python benchmarks/pixel_scorers.py [PHOTOS]`` takes a folder with ``images/*.jpg`` and, with known codes,
``qr/labels.json``. The usual way decodes each image and scores it on one core; ours does the same on two threads.
Both sides take turns, so that a ratio compares like with like on a noisy machine; the median of the turns counts.
"""

from __future__ import annotations

import datetime
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from _machine import machine
from PIL import Image

from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Pixels, Rows, Scorer
from clipsieve.core.embed import Prompts, TextVectors
from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout
from clipsieve.scorers import (
    Blur,
    ClipScore,
    ContentHash,
    FileBytes,
    ImageTextRatio,
    Label,
    PairSimilarity,
    PerceptualHash,
    QrCode,
    Size,
    Words,
)

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
TURNS = 7


def usual_pixels(data: bytes) -> Pixels:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def usual_blur(data: bytes) -> float:
    return float(cv2.Laplacian(usual_pixels(data), cv2.CV_64F).var())


def usual_codes(data: bytes) -> int:
    """Codes that OpenCV finds, whether or not it can read them."""
    found, _, corners, _ = cv2.QRCodeDetector().detectAndDecodeMulti(usual_pixels(data))
    return len(corners) if found else 0


def ours(scorer: Scorer, images: list[bytes], threads: int) -> list[float]:
    """Scores each image as an engine does, fetched, decoded and scored in one go."""
    (column,) = scorer.columns
    batch = Batch.from_lists(images)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda i: scorer.score(batch.one_image(i))[column][0].as_py(), range(len(images))))


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(usual: Callable[[], Any], ours: Callable[[], Any], images: int) -> dict[str, float]:
    """Median milliseconds an image of both, how many times faster ours is, and how many times less CPU it takes.

    The CPU's ratio is that of one core against one core, whatever else the machine does.
    """
    turns = []
    for _ in range(TURNS):
        start = time.process_time()
        usual_wall = seconds(usual)
        between = time.process_time()
        ours_wall = seconds(ours)
        turns.append((usual_wall, ours_wall, between - start, time.process_time() - between))
    usual_ms, ours_ms = (statistics.median(turn[i] for turn in turns) / images * 1e3 for i in (0, 1))
    return {
        "usual_ms": round(usual_ms, 3),
        "ours_ms": round(ours_ms, 3),
        "times_faster": round(statistics.median(turn[0] / turn[1] for turn in turns), 2),
        "times_less_cpu": round(statistics.median(turn[2] / turn[3] for turn in turns), 2),
    }


def against_the_usual_way(images: list[bytes]) -> dict[str, Any]:
    pixels = [usual_pixels(data) for data in images]
    decoded = Batch.from_lists(pixels)
    count = len(images)
    return {
        "decode and blur, 2 threads": compare(
            lambda: [usual_blur(data) for data in images], lambda: ours(Blur(), images, 2), count
        ),
        "decode and blur, 1 thread": compare(
            lambda: [usual_blur(data) for data in images], lambda: ours(Blur(), images, 1), count
        ),
        "blur alone, 1 thread": compare(
            lambda: [cv2.Laplacian(rgb, cv2.CV_64F).var() for rgb in pixels], lambda: Blur().score(decoded), count
        ),
        "decode and QR, 2 threads": compare(
            lambda: [usual_codes(data) for data in images], lambda: ours(QrCode(), images, 2), count
        ),
        "QR alone, 1 thread": compare(
            lambda: [cv2.QRCodeDetector().detectAndDecodeMulti(rgb) for rgb in pixels],
            lambda: QrCode().score(decoded),
            count,
        ),
    }


def same_blur(images: list[bytes]) -> float:
    """Largest relative difference between our blur score and the usual one."""
    pairs = zip(ours(Blur(), images, 1), map(usual_blur, images), strict=True)
    return max(abs(mine / other - 1) for mine, other in pairs)


def codes_found(coded: list[bytes], plain: list[bytes]) -> dict[str, str]:
    """Photographs with a code that are found, and those without one that are found all the same."""

    def counts(found: Callable[[list[bytes]], list[bool]]) -> str:
        return f"{sum(found(coded))} of {len(coded)}, falsely {sum(found(plain))} of {len(plain)}"

    return {
        "usual": counts(lambda images: [usual_codes(data) > 0 for data in images]),
        "ours": counts(lambda images: [covered > 0 for covered in ours(QrCode(), images, 2)]),
    }


def documents(rows: int, words: int) -> Batch:
    """Interleaved rows, text and image in turn, five of each a document."""
    text = " ".join(f"word{i % 97}" for i in range(words))
    columns = {
        "sample_id": [str(row // 10) for row in range(rows)],
        "modality": ["text", "image"] * (rows // 2),
        "text_content": [f"{row} {text}" if row % 2 == 0 else None for row in range(rows)],
        "binary_content": [None if row % 2 == 0 else b"x" for row in range(rows)],
    }
    table = pa.table({field.name: pa.array(columns.get(field.name, [None] * rows), field.type)
                      for field in INTERLEAVED_SCHEMA})  # fmt: skip
    return Batch.from_rows(Rows(table=table), Layout(kind="interleaved"))


def cost_a_unit(scorer: Scorer, batch: Batch, units: int) -> float:
    """Median milliseconds a unit of a scorer whose views are there."""
    return round(statistics.median(seconds(lambda: scorer.score(batch)) for _ in range(TURNS)) / units * 1e3, 5)


def costs(images: list[bytes]) -> dict[str, float]:
    """Milliseconds a unit on one thread; decoding and encoding not counted, reading headers counted."""
    vectors = np.random.default_rng(0).normal(size=(4096, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    samples = np.arange(4096, dtype=np.int64)
    scored = Batch.from_lists([np.zeros((1, 1, 3), np.uint8)] * 4096)
    scored.image_vectors = vectors
    scored.text_vectors = TextVectors(vectors=vectors, samples=samples)
    label = Label(labels=[str(number) for number in range(100)])
    prompts = dict(zip(label.prompts, vectors, strict=False))
    scored.prompts = Prompts(vectors=prompts, logit_scale=100.0, logit_bias=0.0, sigmoid=False)
    paired = Batch.from_lists([[np.zeros((1, 1, 3), np.uint8)] * 2] * 2048)
    paired.image_vectors = vectors
    bytes_only, decoded = Batch.from_lists(images), Batch.from_lists(images)
    bytes_only.bytes, decoded.pixels  # noqa: B018 - so that these views are there
    prose = documents(20_000, words=60)
    return {
        "decode": round(statistics.median(seconds(lambda: Batch.from_lists(images).pixels) for _ in range(TURNS))
                        / len(images) * 1e3, 3),
        "width, height": round(statistics.median(seconds(lambda: Size().score(Batch.from_lists(images)))
                               for _ in range(TURNS)) / len(images) * 1e3, 4),
        "file_bytes": cost_a_unit(FileBytes(), bytes_only, len(images)),
        "content_hash": cost_a_unit(ContentHash(), bytes_only, len(images)),
        "perceptual_hash": cost_a_unit(PerceptualHash(), decoded, len(images)),
        "words, a row": cost_a_unit(Words(), prose, 20_000),
        "label, 100 of them": cost_a_unit(label, scored, 4096),
        "clip_score": cost_a_unit(ClipScore(), scored, 4096),
        "pair_similarity": cost_a_unit(PairSimilarity(), paired, 2048),
    }  # fmt: skip


def ratio_rows_a_second() -> dict[str, int]:
    """Interleaved rows a second of the ratio alone, by words a text."""
    return {
        f"{words} words a text": round(1e3 / cost_a_unit(ImageTextRatio(), documents(20_000, words), 20_000))
        for words in (20, 60, 200)
    }


def main() -> None:
    photos = Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOS
    images = [path.read_bytes() for path in sorted((photos / "images").glob("*.jpg"))]
    if not images:
        sys.exit(f"no photographs at {photos / 'images'}: give a folder that holds images/*.jpg")
    labels = photos / "qr" / "labels.json"
    coded = (
        [(photos / label["file"]).read_bytes() for label in json.loads(labels.read_text())] if labels.exists() else []
    )
    # One core means one: OpenCV would use them all. Ours has its own two threads.
    cv2.setNumThreads(1)
    sizes = [usual_pixels(data).shape[:2] for data in images]
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": machine("opencv-python-headless", "pillow", "zxing-cpp", "numpy"),
        "photographs": f"{len(images)}, {np.mean([h * w for h, w in sizes]) / 1e6:.2f} megapixels on average",
        "against the usual way": against_the_usual_way(images),
        "blur: largest relative difference": same_blur(images),
        "photographs with QR codes": {"found": codes_found(coded, images)},
        "image_text_ratio, rows a second": ratio_rows_a_second(),
        "cost, ms": costs(images),
    }
    if coded:
        results["photographs with QR codes"]["decode and QR, 2 threads"] = compare(
            lambda: [usual_codes(data) for data in coded], lambda: ours(QrCode(), coded, 2), len(coded)
        )
    print(json.dumps(results, indent=2))
    target = ROOT / "benchmarks" / "results" / f"{results['date']}-pixel-scorers.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
