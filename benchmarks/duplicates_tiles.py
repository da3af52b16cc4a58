"""The search for near duplicates by workers that share no memory against the one whose threads do.

``python benchmarks/duplicates_tiles.py`` compares them exactly and approximately on ``--count`` vectors (100,000 of
512 dimensions, as ``duplicates.py`` plants them), each in a process of its own, in turns; the workers are processes, as
many as there are cores. ``--rows`` and ``--cells`` set the sizes of
partitions and cells, so that few vectors make as many of them as many do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from duplicates import THRESHOLD, memory, middle, planted, rounded, write

from clipsieve import dedup
from clipsieve.dedup import cells, partitions
from clipsieve.engines.partition_files import PartitionFiles
from clipsieve.runfolder import RunFolder

T = TypeVar("T")
R = TypeVar("R")

TURNS = 3


@dataclass(frozen=True)
class Mapped:
    """Rows of a file of vectors, as ``dedup.Vectors`` and ``dedup.Located``."""

    path: Path
    rows: npt.NDArray[np.int64] | None = None

    def locate(self, images: npt.NDArray[np.int64]) -> Mapped:
        return Mapped(self.path, images)

    def read(self) -> npt.NDArray[np.float32]:
        return np.asarray(np.load(self.path, mmap_mode="r")[self.rows])


@dataclass(frozen=True)
class Digest:
    path: Path

    def __call__(self, part: slice) -> npt.NDArray[np.uint64]:
        return dedup.digests(np.load(self.path, mmap_mode="r")[part])


@dataclass(frozen=True)
class InProcesses:
    """A ``Spread`` over processes."""

    pool: ProcessPoolExecutor
    seconds: dict[str, float]

    def __call__(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        start = time.perf_counter()
        ahead: deque[Future[R]] = deque()
        for item in items:
            ahead.append(self.pool.submit(work, item))
            if len(ahead) > 2 * (os.cpu_count() or 1):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
        name = type(work).__name__
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start


def search(path: Path, how: str, method: Any, results: Path) -> dict[str, Any]:
    """One search: its seconds, its peak memory, and of the workers how long they were at what."""
    told: dict[str, Any] = {}
    start = time.perf_counter()
    if how == "threads":
        found = dedup.semantic(np.load(path, mmap_mode="r"), THRESHOLD, method=method)
    else:
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            list(pool.map(len, [[1]] * 64))  # the pool stands, as a cluster's does
            start = time.perf_counter()
            spread = InProcesses(pool, {})
            count = len(np.load(path, mmap_mode="r"))
            parts = [slice(at, at + 10_000) for at in range(0, count, 10_000)]
            digests = np.concatenate(list(spread(Digest(path), parts)))
            store = PartitionFiles(folder=RunFolder(path.parent / "run"))
            found = dedup.distributed(Mapped(path), digests, THRESHOLD, method=method, spread=spread, store=store)
            told = {f"{name} s": seconds for name, seconds in spread.seconds.items()}
    seconds = time.perf_counter() - start
    np.savez(results, removed=found.removed, similarity=found.max_similarity, nearest=found.nearest)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    told["cpu seconds"] = sum(one.ru_utime + one.ru_stime for one in used)
    return {"seconds": seconds, "driver's peak MB": memory("VmHWM") / 1e6, "recall": found.recall, **told}


def alone(path: Path, how: str, method: str, rows: int, cell: int) -> dict[str, Any]:
    results = path.with_name(f"{how}-{method}.npz")
    command = [
        sys.executable,
        __file__,
        "--rows",
        str(rows),
        "--cells",
        str(cell),
        "--search",
        str(path),
        how,
        method,
        str(results),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=partitions.FEWEST)
    parser.add_argument("--cells", type=int, default=cells.FEWEST)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--methods", nargs="+", default=["exact", "approximate"])
    parser.add_argument("--search", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    partitions.FEWEST = asked.rows
    cells.FEWEST = asked.cells
    if asked.search:
        path, how, method, results = asked.search
        print(json.dumps(search(Path(path), how, method, Path(results))))
        return
    told: dict[str, Any] = {"vectors": asked.count, "rows of a partition": asked.rows, "members of a cell": asked.cells}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "vectors.npy"
        planted(path, asked.count, isotropic=False)
        for method in asked.methods:
            turns = [
                [alone(path, how, method, asked.rows, asked.cells) for how in ("threads", "workers")]
                for _ in range(asked.turns)
            ]
            threads, workers = (middle([turn[side] for turn in turns]) for side in (0, 1))
            ours, theirs = (np.load(path.with_name(f"{how}-{method}.npz")) for how in ("workers", "threads"))
            told[method] = {
                "threads": threads,
                "workers": workers,
                "times as long": rounded(statistics.median(b["seconds"] / a["seconds"] for a, b in turns)),
                "times as much cpu": rounded(statistics.median(b["cpu seconds"] / a["cpu seconds"] for a, b in turns)),
                "same removed": rounded(float((ours["removed"] == theirs["removed"]).mean())),
                "same nearest": rounded(float((ours["nearest"] == theirs["nearest"]).mean())),
            }
            print(json.dumps(told[method]), flush=True)
    write("duplicates-tiles", told)


if __name__ == "__main__":
    main()
