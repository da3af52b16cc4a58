"""Building an index and searching it, in each store: exact over every vector, and approximate where that builds soon.

``python benchmarks/search.py [ROWS...]`` fills indexes of 512 dimensions with clustered unit vectors (1,000 centres, as
near to their own as photographs of one motif), captions and three scores, without thumbnails, which no search reads
but for its results. A latency is the median of warm queries for 20 images through ``Index.nearest``, reading the
results included; queries are fresh vectors of the same clusters. Recall is what ``clipsieve index`` prints.
"""

from __future__ import annotations

import datetime
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from _machine import machine

from clipsieve.index import About, Index

ROOT = Path(__file__).parents[1]
DIM = 512
SIZES = (10_000, 100_000, 1_000_000)
QUERIES = 15
PUT = 2048
LIMIT_S = 300
"""An approximate index that would take longer, going by the smaller one, is not built."""

SCORES = [pa.field(name, pa.float64()) for name in ("clip_score", "blur", "width")]
CENTRES = np.random.default_rng(1).normal(size=(1000, DIM)).astype(np.float32)


def clustered(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    vectors = CENTRES[rng.integers(0, len(CENTRES), count)] + rng.normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def batches(rows: int) -> Iterator[pa.Table]:
    rng = np.random.default_rng(rows)
    for start in range(0, rows, PUT):
        count = min(PUT, rows - start)
        ids = [f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}" for i in range(start, start + count)]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(clustered(rng, count).ravel()), DIM)
        yield pa.table(
            {
                "id": ids,
                "caption": [f"a caption of some words, the {i}th" for i in range(start, start + count)],
                "reference": [f"images/{name}.jpg" for name in ids],
                "sample_id": ids,
                "image": pa.array([0] * count, pa.int32()),
                "sources": [["benchmark"]] * count,
                "digest": ids,
                "thumbnail": pa.nulls(count, pa.binary()),
                **{field.name: rng.random(count) for field in SCORES},
                "vector": vectors,
            }
        )


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def latency_ms(index: Index, **options: Any) -> float:
    queries = clustered(np.random.default_rng(7), QUERIES)
    index.nearest(queries[0], **options)
    return round(statistics.median(seconds(lambda q=q: index.nearest(q, **options)) for q in queries) * 1e3, 1)  # type: ignore[misc]


def measure(place: str, rows: int, approximate: bool) -> dict[str, Any]:
    """One store at one size, in a process of its own."""
    about = About(model="none", revision=None, fingerprint="none", dim=DIM)
    with Index.create(place, about, SCORES) as index:
        found: dict[str, Any] = {
            "rows": rows,
            "build_s": round(sum(seconds(lambda t=t: index.store.put(t)) for t in batches(rows)), 1),  # type: ignore[misc]
            "exact_ms": latency_ms(index),
            "exact_where_1_percent_ms": latency_ms(index, where="clip_score >= 0.99"),
        }
        if approximate:
            build, built = index.store.approximate, []
            index.store.approximate = lambda dim: built.append(seconds(lambda: build(dim)))  # type: ignore[method-assign]
            found["recall_at_10"] = index.approximate().recall
            found["approximate_build_s"] = round(built[0], 1)
            found["approximate_ms"] = latency_ms(index)
    found["peak_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        place, rows, approximate = sys.argv[2:]
        print(json.dumps(measure(place, int(rows), approximate == "True")))
        return
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine("lancedb", "chdb", "numpy", "pyarrow"),
        "dimensions": DIM,
    }
    for store in ("lancedb", "chdb"):
        slow = 0.0
        results[store] = []
        for rows in sizes:
            with tempfile.TemporaryDirectory() as folder:
                place = f"{'chdb://' if store == 'chdb' else ''}{folder}/index"
                approximate = slow * rows <= LIMIT_S
                command = [sys.executable, __file__, "--one", place, str(rows), str(approximate)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout)
            slow = max(slow, found.get("approximate_build_s", LIMIT_S) / rows)
            results[store].append(found)
            print(store, json.dumps(found), flush=True)
    target = ROOT / "benchmarks" / "results" / f"{results['date']}-search.json"
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
