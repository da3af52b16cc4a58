"""What the engine on Ray costs beside the local one, on one machine, on a chain that the model holds up.

``python benchmarks/cluster.py [IMAGES [ROUNDS]]`` runs blur and CLIP score over so many captioned photographs, and over
three times as many, with one core and with two. What an image costs is the difference between the two runs, so that
neither the start of a cluster nor the loading of a model counts. Each case is a process of its own, bound to its cores,
and the engines take turns. The model is ViT-B/32 with random weights.

Where a machine shares its processors with others the clock tells little, so the limit is on processor time: what the
cores were busy, by the kernel's own count, which leaves out what other machines took of them.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from _machine import machine
from memory import photographs

import clipsieve

ROOT = Path(__file__).parents[1]
IMAGES, ROUNDS, CORES = 96, 3, (1, 2)
TIMES = 3
"""How much larger the larger run is."""
LIMIT = 1.15
IN_A_SHARD = 32


def write(path: Path, count: int) -> None:
    """So many captioned photographs, a few different ones over and over, in files of a shard each."""
    rng = random.Random(0)
    found = photographs(20)
    words = ["a red boat on the sea", "a dog in the snow", "two people at a table", "a street at night"]
    for start in range(0, count, IN_A_SHARD):
        numbers = range(start, min(start + IN_A_SHARD, count))
        rows = {"image": [found[n % 20] for n in numbers], "text": [f"{rng.choice(words)}, {n}" for n in numbers]}
        pq.write_table(pa.table(rows), path / f"{start:06d}.parquet")


def case(engine: str, cores: int, folder: Path) -> dict[str, float]:
    """Seconds of the smaller run, of the larger, and an image; in this process, which has so many cores."""
    if engine == "ray":
        import ray

        ray.init("local", num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=2**30)
    seconds = {}
    for size in ("warm", "small", "large"):  # the first imports, and starts processes
        source = folder / size
        files = sorted(map(str, source.glob("*.parquet")))
        with tempfile.TemporaryDirectory() as out:
            began, busy = time.perf_counter(), busy_s(cores)
            run = clipsieve.run(
                read={"path": files, "shard_bytes": max(os.path.getsize(file) for file in files)},
                model=str(folder / "model"),
                keep=["blur >= 1", "clip_score >= -1"],
                out=Path(out) / "run",
                workers=cores,
                engine=engine,
            )
            seconds[size] = time.perf_counter() - began
            seconds[f"{size} busy"] = busy_s(cores) - busy
            seconds[f"{size} images"] = run.counts.images.total
    more = seconds["large images"] - seconds["small images"]
    return {
        "small_s": round(seconds["small"], 2),
        "large_s": round(seconds["large"], 2),
        "image_ms": round(1000 * (seconds["large"] - seconds["small"]) / more, 3),
        "image_busy_ms": round(1000 * (seconds["large busy"] - seconds["small busy"]) / more, 3),
    }


def busy_s(cores: int) -> float:
    """Seconds that the first cores of this machine have worked since it started, for whomever."""
    return sum(one.user + one.nice + one.system for one in psutil.cpu_times(percpu=True)[:cores])


def measured(engine: str, cores: int, folder: Path) -> dict[str, float]:
    """A case in a process of its own, bound to its cores before it imports what starts a thread for each core."""
    command = [sys.executable, __file__, "case", engine, str(cores), str(folder)]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, set(range(cores))),
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(taken: Sequence[Mapping[str, Mapping[str, float]]], what: str) -> tuple[float, list[float]]:
    """How many times as much of something Ray takes, the median and each round's."""
    ratios = [round(one["ray"][what] / one["local"][what], 3) for one in taken]
    return statistics.median(ratios), ratios


def main(images: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run(
            [sys.executable, ROOT / "tools" / "make_random_clip.py", folder / "model"], check=True, capture_output=True
        )
        for size, count in (("warm", IN_A_SHARD), ("small", images), ("large", TIMES * images)):
            (folder / size).mkdir()
            write(folder / size, count)
        cases: list[dict[str, Any]] = []
        medians: dict[str, dict[int, float]] = {"local": {}, "ray": {}}
        for cores in (cores for cores in CORES if cores <= (os.cpu_count() or 1)):
            taken = [{engine: measured(engine, cores, folder) for engine in ("local", "ray")} for _ in range(rounds)]
            for engine, by_cores in medians.items():
                by_cores[cores] = statistics.median(one[engine]["image_ms"] for one in taken)
            ratio, ratios = compared(taken, "image_busy_ms")
            clock, _ = compared(taken, "image_ms")
            cases.append({"cores": cores, "ratio": ratio, "ratios": ratios, "ratio by clock": clock, "rounds": taken})
            print(
                f"{cores} cores: on Ray an image takes {ratio} times the processor time, of {ratios}, {clock} times "
                "by the clock",
                flush=True,
            )
    fewest, most = min(medians["local"]), max(medians["local"])
    speedup = {engine: round(by_cores[fewest] / by_cores[most], 2) for engine, by_cores in medians.items()}
    print(f"from {fewest} to {most} cores, times as fast: {speedup}")
    result = {
        "date": date.today().isoformat(),
        "machine": machine("clipsieve", "ray", "torch", "transformers"),
        "images": [images, TIMES * images],
        "limit": LIMIT,
        "cases": cases,
        "speedup": speedup,
    }
    path = ROOT / "benchmarks" / "results" / f"{result['date']}-cluster.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)
    if any(one["ratio"] > LIMIT for one in cases):
        sys.exit(f"more than {LIMIT - 1:.0%} over the local engine")


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        print(json.dumps(case(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
    else:
        numbers = [int(number) for number in sys.argv[1:3]]
        main(*(numbers + [IMAGES, ROUNDS][len(numbers) :]))
