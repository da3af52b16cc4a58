"""Peak memory of runs over 2,000 and 20,000 images: bounded by what is in flight, never by the source.

``python benchmarks/memory.py`` runs each case in a process of its own and subtracts what the process holds once the
model is loaded. The model is a ViT-B/32 with random weights and one layer a tower: as large an input, less waiting.
A few generated images stand in every row, so that the source takes little disk.
"""

from __future__ import annotations

import io
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipsieve import api
from clipsieve.core.layout import INTERLEAVED_SCHEMA

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

from make_random_clip import make_clip  # noqa: E402 - tools are scripts, no package

COUNTS = (2_000, 20_000)
LIMIT_MB = 1_000
GROWTH = 1.15


def photographs(count: int) -> list[bytes]:
    """JPEGs of 640 x 480, about as large as a photograph's: smooth shades under noise."""
    rng = random.Random(0)
    found = []
    for _ in range(count):
        shades = Image.frombytes("RGB", (32, 24), rng.randbytes(32 * 24 * 3)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        noise = Image.frombytes("RGB", (640, 480), rng.randbytes(640 * 480 * 3))
        file = io.BytesIO()
        Image.blend(shades, noise, 0.15).save(file, "JPEG", quality=85)
        found.append(file.getvalue())
    return found


def caption_rows(folder: Path, count: int) -> Path:
    """JSON lines that name image files."""
    for number, data in enumerate(photographs(20)):
        (folder / f"{number}.jpg").write_bytes(data)
    path = folder / "captions.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(count):
            file.write(json.dumps({"image": f"{row % 20}.jpg", "caption": f"a photograph, number {row}"}) + "\n")
    return path


def inline_documents(folder: Path, count: int) -> Path:
    """Interleaved Parquet with the images inside, four and as many paragraphs a document."""
    images = photographs(4)  # Few enough for the compression to see that they repeat.
    path = folder / "documents.parquet"
    with pq.ParquetWriter(path, INTERLEAVED_SCHEMA, compression="zstd", use_dictionary=False) as writer:
        for document in range(count // 4):
            rows = [
                row
                for place, image in enumerate(images)
                for row in (
                    {"modality": "text", "text_content": f"Paragraph {place} of document {document} says little."},
                    {"modality": "image", "binary_content": image},
                )
            ]
            named = [{**row, "sample_id": str(document), "position": place} for place, row in enumerate(rows)]
            writer.write_table(pa.Table.from_pylist(named, schema=INTERLEAVED_SCHEMA), row_group_size=2**20)
    return path


CASES: dict[str, Callable[[Path, int], Path]] = {
    "caption rows of image files to WebDataset": caption_rows,
    "interleaved Parquet with inline images to WebDataset": inline_documents,
}


class Start(api.Silent):
    """Hears when the model is loaded and the work begins."""

    def __init__(self) -> None:
        self.memory = 0

    def start(self, shards: int, done: int) -> None:
        self.memory = psutil.Process().memory_info().rss


@contextmanager
def watched() -> Iterator[list[int]]:
    """The largest resident memory so far, looked at every 10 ms."""
    peak, over, process = [0], threading.Event(), psutil.Process()

    def look() -> None:
        while not over.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def measure(source: str, model: str, out: str) -> None:
    """One run in this process; prints megabytes."""
    start = Start()
    with watched() as peak:
        run = api.run(
            read=source,
            model=model,
            keep=["blur >= 100", "clip_score >= -1"],
            write="webdataset",
            out=out,
            progress=start,
        )
    assert run.counts.images.kept == run.counts.images.total
    print(json.dumps({"at start": start.memory >> 20, "beyond the model": (peak[0] - start.memory) >> 20}))


def main() -> None:
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()},
        "unit": "MB",
    }
    fine = True
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        make_clip(model, layers=1)
        for case, write in CASES.items():
            found = {}
            for count in COUNTS:
                with tempfile.TemporaryDirectory(dir=name) as folder:
                    source = write(Path(folder), count)
                    command = [sys.executable, __file__, "run", source, model, Path(folder) / "run"]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[f"{count:,} images"] = json.loads(done.stdout.splitlines()[-1])
            small, large = (values["beyond the model"] for values in found.values())
            results[case] = {**found, "growth": round(large / small, 3)}
            fine &= large <= GROWTH * small and large < LIMIT_MB
    print(json.dumps(results, indent=2))
    target = ROOT / "benchmarks" / "results" / f"{results['date']}-memory.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    if not fine:
        sys.exit(f"memory grew by more than {GROWTH - 1:.0%}, or beyond {LIMIT_MB} MB")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["run", source, model, out]:
            measure(source, model, out)
