"""Deciding later: what ``clipsieve tune`` takes by the size of the ledger, and ``apply`` against a run anew.

``python benchmarks/tuning.py [ROWS] [PAIRS]``: commands over a made-up ledger of ROWS caption rows (a million unless
said) in processes of their own, start included; then stricter rules for a run over PAIRS generated photographs (2,000
unless said) with the bundled model, as a run anew and as an ``apply``, in turns. Medians of several.
"""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _machine import machine
from view import make_run

import clipsieve
from clipsieve import demo

ROOT = Path(__file__).parents[1]
TIMES = 5
COMMANDS = {
    "tune": ["--keep", "clip_score >= 0.25", "--keep", "blur >= 80", "--keep", "width >= 256"],
    "tune, thresholds by share": ["--suggest", "30%"],
}
OWN, STRICTER = ["blur >= 100", "clip_score >= 0.5"], ["blur >= 400", "clip_score >= 0.55"]


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def commands(folder: Path, rows: int) -> dict[str, float]:
    """Median seconds of each command."""
    make_run(folder / "run", rows, None)
    found = {}
    for name, flags in COMMANDS.items():
        command = [sys.executable, "-m", "clipsieve.cli", "tune", str(folder / "run"), *flags]
        times = [seconds(lambda c=command: subprocess.run(c, check=True, capture_output=True)) for _ in range(TIMES)]
        found[name] = statistics.median(times)
    return found


def applied(folder: Path, pairs: int) -> dict[str, float]:
    """Median seconds of a run anew and of an ``apply`` with the same rules and output."""
    demo.generate(folder / "data", documents=1, pairs=pairs)
    shared: dict[str, Any] = {"read": str(folder / "data" / "pairs.jsonl"), "model": "demo", "write": "webdataset"}
    before = clipsieve.run(**shared, keep=OWN, out=folder / "before")
    times: dict[str, list[float]] = {"run": [], "apply": []}
    for turn in range(TIMES):
        times["run"].append(seconds(lambda t=turn: clipsieve.run(**shared, keep=STRICTER, out=folder / f"run{t}")))
        times["apply"].append(seconds(lambda t=turn: clipsieve.apply_run(before, STRICTER, out=folder / f"apply{t}")))
    return {name: statistics.median(of) for name, of in times.items()}


def main() -> None:
    rows, pairs = (int(text) for text in (sys.argv[1:] + ["1000000", "2000"][len(sys.argv) - 1 :])[:2])
    with tempfile.TemporaryDirectory() as folder:
        told = commands(Path(folder), rows)
        again = applied(Path(folder), pairs)
    for name, taken in told.items():
        print(f"{name:<28}{taken:6.2f} s for {rows:,} rows")
    ratio = again["run"] / again["apply"]
    print(f"apply is {ratio:.1f} times as quick as a run anew over {pairs:,} images ({again['run']:.2f} s)")
    result = {"machine": machine(), "rows": rows, "seconds": told, "pairs": pairs, "again": again, "ratio": ratio}
    today = datetime.date.today().isoformat()
    (ROOT / "benchmarks" / "results" / f"{today}-tuning.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
