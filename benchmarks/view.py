"""What an interaction with ``clipsieve view`` takes, in the server: question, arithmetic, and the answer as JSON.

``python benchmarks/view.py [ROWS] [DIM]`` makes a run of ROWS caption rows (100,000 unless said) with eight scores, of
which early exit left clip_score out where an earlier rule dropped, groups of near duplicates and, where DIM is given,
vectors of so many dimensions; no image is read. Each figure is the median of several different questions, in ms, after
one that is not counted. A drag asks for another threshold each time, and for the images once it has the counts, as the
page does.
"""

from __future__ import annotations

import datetime
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from _machine import machine

from clipsieve import encoders
from clipsieve.api import Run
from clipsieve.core.ledger import BASE_SCHEMA
from clipsieve.recipe import Recipe
from clipsieve.runfolder import RunFolder, write_table

warnings.filterwarnings("ignore", module="starlette")
from starlette.testclient import TestClient  # noqa: E402

from clipsieve.web.security import Access  # noqa: E402
from clipsieve.web.server import answers_of  # noqa: E402

ROOT = Path(__file__).parents[1]
SHARD = 50_000
TIMES = 9
KEEP = ["width >= 256", "blur >= 100", "qr_code <= 0.05", "clip_score >= 0.22"]
DEDUP = 0.95


def make_run(path: Path, rows: int, dim: int | None) -> None:
    """A finished run whose ledger is what its rules make of made-up scores."""
    recipe = Recipe.build({"read": str(path / "gone.jsonl"), "model": "demo", "keep": KEEP, "dedup": DEDUP})
    fingerprint = encoders.load("demo").fingerprint
    executed = {"layout": "captions", "encoder": fingerprint, "versions": {}}
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(yaml.safe_dump({**recipe.identity(), "executed": executed}))
    starts = range(0, rows, SHARD)
    pieces = [[{"path": "gone.jsonl", "start": s, "stop": min(s + SHARD, rows)}] for s in starts]
    (path / "shards.json").write_text(json.dumps({"files": [], "shards": pieces}))
    folder = RunFolder(path)
    for shard, start in enumerate(starts):
        count = min(SHARD, rows - start)
        write_table(folder.part("ledger", shard), ledger(shard, start, count))
        if dim:
            vectors = np.random.default_rng(shard).normal(size=(count, dim)).astype(np.float32)
            (path / "vectors").mkdir(exist_ok=True)
            np.save(folder.vectors(shard, "image"), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def ledger(shard: int, start: int, rows: int) -> pa.Table:
    """The part of one shard."""
    rng = np.random.default_rng(shard)
    scores = {
        "width": rng.integers(64, 4096, rows).astype(float),
        "height": rng.integers(64, 4096, rows).astype(float),
        "words": rng.integers(1, 60, rows).astype(float),
        "file_bytes": np.exp(rng.normal(11, 1, rows)).round(),
        "blur": np.exp(rng.normal(6, 1.5, rows)),
        "qr_code": np.where(rng.random(rows) < 0.02, rng.random(rows) / 2, 0.0),
        "clip_score": rng.normal(0.27, 0.05, rows).round(5),
    }
    rule = np.full(rows, "", dtype=object)
    lost = np.zeros(rows, dtype=bool)
    for text, failing in zip(
        KEEP,
        (scores["width"] < 256, scores["blur"] < 100, scores["qr_code"] > 0.05, scores["clip_score"] < 0.22),
        strict=True,
    ):
        rule[failing & ~lost] = text
        lost |= failing
    early = np.isin(rule, KEEP[:3])  # what the model never saw
    group = np.where(~lost & (rng.random(rows) < 0.05), start + rng.integers(0, rows // 50, rows), -1)
    first = np.zeros(rows, dtype=bool)
    first[np.unique(group, return_index=True)[1]] = True
    copies = (group >= 0) & ~first
    rule[copies] = f"dedup {DEDUP:g}"
    lost |= copies
    verdict = np.where(lost, "dropped", "kept")
    numbers = np.arange(rows)
    base = [
        np.full(rows, shard), numbers, np.zeros(rows), numbers, [f"sample-{start + n:08d}" for n in range(rows)],
        [f"images/{start + n:08d}.jpg" for n in range(rows)], verdict, pa.array(rule, mask=rule == ""),
        pa.array([f"fails {text}" if text else None for text in rule]), pa.nulls(rows), verdict, np.zeros(rows, bool),
    ]  # fmt: skip
    fields = [pa.array(column).cast(field.type) for column, field in zip(base, BASE_SCHEMA, strict=True)]
    table = pa.Table.from_arrays(fields, schema=BASE_SCHEMA)
    for name, values in scores.items():
        column = pa.array(values, pa.float64(), mask=early if name == "clip_score" else None)
        unit = "sample" if name == "words" else "image"
        table = table.append_column(pa.field(name, pa.float64(), metadata={"unit": unit}), column)
    similarity = pa.array(np.where(copies, 0.99, rng.random(rows) * 0.9), pa.float64(), mask=lost & ~copies)
    table = table.append_column(pa.field("max_similarity", pa.float64(), metadata={"unit": "image"}), similarity)
    return table.append_column("duplicate_group", pa.array(group, mask=group < 0))


def median_ms(ask: Callable[[int], Any], before: Callable[[int], Any] = lambda number: None) -> float:
    """The median over different questions, after one that is not counted; ``before`` each, something else is asked."""
    ask(0)
    found = []
    for number in range(1, TIMES + 1):
        before(number)
        began = time.perf_counter()
        ask(number)
        found.append(time.perf_counter() - began)
    return round(statistics.median(found) * 1e3, 1)


def main(rows: int, dim: int | None) -> None:
    """Makes a run, asks, and writes what came of it beside the other results."""
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder) / "run", rows, dim)
        began = time.perf_counter()
        answers = answers_of(Run.open(Path(folder) / "run"))
        opened = time.perf_counter() - began
        client = TestClient(answers.app(Access.at("127.0.0.1", 8765)), base_url="http://127.0.0.1:8765")
        client.headers["X-Clipsieve"] = "view"
        scores = [score["name"] for score in client.get("/api/run").json()["scores"]]

        def rules(number: int) -> list[str]:
            return [*KEEP[:3], f"clip_score >= {0.2 + number / 100:g}"]

        def post(path: str, **question: Any) -> Any:
            answer = client.post(f"/api/{path}", json=question)
            assert answer.status_code == 200, answer.text
            return answer.json()

        def count(number: int) -> Any:
            return post("decide", keep=rules(number), histograms=scores)

        def moved(**question: Any) -> float:
            return median_ms(lambda number: post("gallery", keep=rules(number), **question), count)

        def still(path: str, question: Callable[[int], dict[str, Any]]) -> float:
            return median_ms(lambda number: post(path, keep=KEEP, **question(number)))

        figures = {
            "drag: counts and all histograms": median_ms(count),
            "drag: then the kept images": moved(show="kept"),
            "drag: then the changed ones, nearest to the threshold first": moved(show="changed", order="near", near=3),
            "drag: then all images, nearest to the threshold first": moved(order="near", near=3),
            "kept images, sorted by another score": still(
                "gallery", lambda n: {"show": "kept", "sort": scores[n % len(scores)], "order": "down"}
            ),
            "the next page": still("gallery", lambda n: {"show": "kept", "offset": 60 * n}),
            "groups of near duplicates": still("groups", lambda n: {"offset": 20 * n}),
            "one image": still("image", lambda n: {"row": n * rows // 100}),
        }
        if dim:
            figures["similar images by the run's vectors"] = still("search", lambda n: {"row": n})
        result = {
            "date": datetime.date.today().isoformat(),
            "rows": rows,
            "dim": dim,
            "open_s": round(opened, 1),
            "ms": figures,
            "machine": machine("numpy", "pyarrow", "starlette"),
        }
    print(json.dumps(result, indent=1))
    if rows >= 1_000_000:
        path = ROOT / "benchmarks" / "results" / f"{result['date']}-view.json"
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    asked = [int(number) for number in sys.argv[1:]]
    main(asked[0] if asked else 100_000, asked[1] if len(asked) > 1 else None)
