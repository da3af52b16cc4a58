"""Near duplicates among vectors: against scikit-learn's matrix of cosines, and alone up to a million.

``python benchmarks/duplicates.py`` does both; ``--small`` and ``--large 100000 1000000`` do one or some sizes, and
``--exact`` searches all large sizes exactly too, not only those where that takes a minute. The vectors are synthetic:
a common direction, groups, and a spectrum that falls as that of CLIP's image vectors does, with planted duplicates
(see ``planted``); ``--isotropic`` has no common direction and no falling spectrum, the worst case for our sketches.

Every search is a process of its own that reads the vectors memory-mapped, so that its peak memory is its own. Both
sides take turns, and the median of the turns counts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _machine import machine

ROOT = Path(__file__).parents[1]
DIM = 512
THRESHOLD = 0.90
SMALL = (5_000, 10_000, 20_000, 30_000)
LARGE = (100_000, 300_000, 1_000_000)
EXACT_TOO = 300_000
TURNS = 3
SAMPLE = 4096

Vectors = npt.NDArray[np.float32]


def planted(path: Path, count: int, isotropic: bool) -> None:
    """Writes ``(count, DIM)`` unit vectors, 5 % of which are another one with up to half its length of noise added.

    50 vectors a group; within a group two thirds of the variance are shared. The variance of the k-th of the principal
    directions falls as ``k ** -1.1`` and the common direction has half of the energy.
    """
    random = np.random.default_rng(0)
    spectrum = np.ones(DIM) if isotropic else np.arange(1, DIM + 1) ** -0.55
    spectrum /= np.linalg.norm(spectrum)
    basis = np.linalg.qr(random.normal(size=(DIM, DIM)))[0] * spectrum[:, None]
    common = np.zeros(DIM) if isotropic else np.linalg.qr(random.normal(size=(DIM, 1)))[0][:, 0]
    centres = random.normal(size=(count // 50, DIM)).astype(np.float32)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, DIM))
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        group = centres[random.integers(len(centres), size=size)]
        own = random.normal(size=(size, DIM)).astype(np.float32)
        rows[start : start + size] = unit((0.8 * group + 0.6 * own) @ basis.astype(np.float32) + common)
    chosen = random.choice(count, count // 10, replace=False).reshape(2, -1)
    for originals, copies in zip(*(np.array_split(half, count // 10_000 + 1) for half in chosen), strict=True):
        noise = unit(random.normal(size=(len(copies), DIM)))
        rows[copies] = unit(rows[originals] + random.uniform(0, 0.5, size=(len(copies), 1)) * noise)
    rows.flush()


def unit(rows: npt.NDArray[Any]) -> Vectors:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def usual(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """The way of most tutorials: all cosines at once, the pairs above the threshold, a loop over them."""
    from sklearn.metrics.pairwise import cosine_similarity

    cosines = cosine_similarity(vectors)
    removed = np.zeros(len(vectors), dtype=bool)
    for first, second in zip(*np.where(cosines >= THRESHOLD), strict=True):
        if first < second:
            removed[second] = True
    return removed


def search(path: Path, how: str, results: Path) -> dict[str, Any]:
    """One search in this process: its seconds, its peak memory, and that memory without what stood there before."""
    vectors = np.load(path, mmap_mode="r")
    if how == "usual":
        import sklearn.metrics.pairwise

        assert sklearn.metrics.pairwise
    else:
        from clipsieve import dedup
    before = memory("VmRSS")
    start = time.perf_counter()
    if how == "usual":
        removed = usual(np.array(vectors))
        told: dict[str, Any] = {}
    else:
        found = dedup.semantic(vectors, THRESHOLD, method=how)  # type: ignore[arg-type]
        removed, told = found.removed, {"recall told": found.recall}
        np.savez(results, removed=found.removed, group=found.group, similarity=found.max_similarity)
    seconds = time.perf_counter() - start
    peak = memory("VmHWM")
    return {
        "seconds": seconds, "peak MB": peak / 1e6, "MB beyond vectors": (peak - before - path.stat().st_size) / 1e6,
        "removed": int(removed.sum()), **told,
    }  # fmt: skip


def memory(name: str) -> int:
    """This process's memory in bytes. (``getrusage`` would count what its parent had when it started this one.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure(path: Path, how: str, turns: int = 1) -> dict[str, Any]:
    """The median of some turns of a search, each in a process of its own."""
    return middle([alone(path, how) for _ in range(turns)])


def alone(path: Path, how: str) -> dict[str, Any]:
    results = path.with_name(f"{how}.npz")
    command = [sys.executable, __file__, "--search", str(path), how, str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def middle(turns: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: rounded(statistics.median(turn[name] for turn in turns)) if turns[0][name] is not None else None
            for name in turns[0]}  # fmt: skip


def rounded(value: float) -> float:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def side_by_side(folder: Path, isotropic: bool) -> dict[str, Any]:
    """Both at each small size, and how both grow from the smallest to the largest: N to the power of what."""
    results: dict[str, Any] = {}
    for count in SMALL:
        path = folder / "small.npy"
        planted(path, count, isotropic)
        turns = [(alone(path, "usual"), alone(path, "exact")) for _ in range(TURNS)]
        theirs, ours = (middle([turn[side] for turn in turns]) for side in (0, 1))
        results[f"{count:,}"] = {
            "scikit-learn": theirs, "clipsieve": ours,
            "times faster": rounded(statistics.median(a["seconds"] / b["seconds"] for a, b in turns)),
            "times less memory": rounded(statistics.median(a["peak MB"] / b["peak MB"] for a, b in turns)),
            "times less memory beyond vectors": rounded(
                statistics.median(a["MB beyond vectors"] / b["MB beyond vectors"] for a, b in turns)),
        }  # fmt: skip
        print(f"{count:,}", json.dumps(results[f"{count:,}"]), flush=True)
    first, last = results[f"{SMALL[0]:,}"]["clipsieve"], results[f"{SMALL[-1]:,}"]["clipsieve"]
    results["ours grow as N to the power of"] = {
        name: rounded(math.log(last[name] / first[name]) / math.log(SMALL[-1] / SMALL[0]))
        for name in ("seconds", "peak MB")
    }
    return results


def large(folder: Path, count: int, isotropic: bool, exactly: bool) -> dict[str, Any]:
    """Approximate and, where it is affordable, exact: the latter is what the former's recall is counted against."""
    path = folder / "large.npy"
    planted(path, count, isotropic)
    results = {"approximate": measure(path, "approximate")}
    print(f"{count:,} approximate", json.dumps(results["approximate"]), flush=True)
    if exactly:
        results["exact"] = measure(path, "exact")
        every, some = (np.load(folder / f"{how}.npz") for how in ("exact", "approximate"))
        results["approximate"] |= {
            "removals found": rounded(float(some["removed"][every["removed"]].mean())),
            "nearest found": rounded(float((some["similarity"] == every["similarity"]).mean())),
        }
    results["approximate"] |= sampled(path, np.load(folder / "approximate.npz"))
    print(f"{count:,}", json.dumps(results), flush=True)
    return results


def sampled(path: Path, found: Any) -> dict[str, float]:
    """Links and nearest images of a sample of rows, by all their cosines, of which the search has so many."""
    vectors = np.load(path, mmap_mode="r")
    rows = np.sort(np.random.default_rng(1).choice(len(vectors), SAMPLE, replace=False))
    mine = np.array(vectors[rows])
    links = met = 0
    best = np.full(len(rows), -1.0)
    for start in range(0, len(vectors), 2048):
        others = np.arange(start, min(start + 2048, len(vectors)))
        cosines = mine @ np.array(vectors[others]).T
        cosines[rows[:, None] == others] = -1
        linked = cosines >= THRESHOLD
        links += np.count_nonzero(linked)
        met += np.count_nonzero(linked & (found["group"][rows][:, None] == found["group"][others]))
        best = np.maximum(best, cosines.max(axis=1))
    return {
        "links found, of a sample": rounded(met / max(links, 1)),
        "nearest found, of a sample": rounded(float((found["similarity"][rows] > best - 2e-5).mean())),
    }


def write(name: str, results: dict[str, Any]) -> None:
    date = datetime.date.today().isoformat()
    target = ROOT / "benchmarks" / "results" / f"{date}-{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(
        json.dumps({"date": date, "machine": machine("numpy", "scikit-learn", "threadpoolctl"), **results}, indent=2)
        + "\n"
    )
    print(target.relative_to(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="only the comparison with scikit-learn")
    parser.add_argument("--large", type=int, nargs="*", metavar="N", help="only these sizes of ours alone")
    parser.add_argument("--exact", action="store_true", help="exact too at every large size")
    parser.add_argument("--isotropic", action="store_true", help="vectors without a common direction")
    parser.add_argument("--search", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.search:
        path, how, results = asked.search
        print(json.dumps(search(Path(path), how, Path(results))))
        return
    everything = not asked.small and asked.large is None
    shape = "-isotropic" if asked.isotropic else ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.small or everything:
            try:
                version("scikit-learn")
            except ModuleNotFoundError:
                sys.exit("the comparison needs scikit-learn: pip install scikit-learn")
            write(f"duplicates-small{shape}", {"against scikit-learn": side_by_side(folder, asked.isotropic)})
        for count in LARGE if everything else asked.large or ():
            exactly = asked.exact or count <= EXACT_TOO
            found = large(folder, count, asked.isotropic, exactly)
            write(f"duplicates-{count}{shape}", {"vectors": count, **found})


if __name__ == "__main__":
    main()
