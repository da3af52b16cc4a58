"""Scores of the whole data set: seconds and peak memory by size, from vectors on disk.

``python benchmarks/dataset_scores.py [PAIRS...]`` makes image vectors as ``duplicates.py`` does (a common direction,
groups, 5 % near duplicates) and texts that lie as far from their images as captions do, and scores each size in a
process of its own that reads them memory-mapped.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine
from duplicates import memory, planted, unit

from clipsieve.scorers import DATASET_COLUMNS

ROOT = Path(__file__).parents[1]
SIZES = (20_000,)
NOISE = 3.0
"""Length of what a text does not share with its image, which makes their cosine about 0.3."""


def texts_of(images: Path, texts: Path) -> None:
    """Writes a text vector for each image vector."""
    vectors = np.load(images, mmap_mode="r")
    random = np.random.default_rng(1)
    rows = np.lib.format.open_memmap(texts, mode="w+", dtype=np.float32, shape=vectors.shape)
    for start in range(0, len(vectors), 10_000):
        some = vectors[start : start + 10_000]
        rows[start : start + 10_000] = unit(some + NOISE * unit(random.normal(size=some.shape)))
    rows.flush()


def measure(folder: Path, name: str) -> dict[str, Any]:
    """One score with its defaults, in this process."""
    scorer = DATASET_COLUMNS[name]()
    vectors = [np.load(folder / f"{of}.npy", mmap_mode="r") for of in scorer.reads]
    before = memory("VmRSS")
    start = time.perf_counter()
    scorer.score(vectors)
    seconds = time.perf_counter() - start
    beyond = memory("VmHWM") - before - sum(vector.nbytes for vector in vectors)
    return {"seconds": round(seconds, 1), "MB beyond vectors": round(beyond / 1e6)}


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(Path(sys.argv[2]), sys.argv[3])))
        return
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine("numpy", "threadpoolctl"),
    }
    for count in [int(size) for size in sys.argv[1:]] or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            planted(Path(folder) / "image.npy", count, isotropic=False)
            texts_of(Path(folder) / "image.npy", Path(folder) / "text.npy")
            for name in DATASET_COLUMNS:
                command = [sys.executable, __file__, "--one", folder, name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results.setdefault(name, {})[f"{count:,}"] = json.loads(done.stdout)
                print(name, f"{count:,}", done.stdout.strip(), flush=True)
    target = ROOT / "benchmarks" / "results" / f"{results['date']}-dataset-scores.json"
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
