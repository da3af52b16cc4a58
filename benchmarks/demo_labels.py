"""How often zero-shot labels of the demo's single-object scenes are right, with the demo model.

``python benchmarks/demo_labels.py`` generates the demo data as ``clipsieve demo`` does, embeds it once, and labels it
three times by its vectors. Scenes half hidden by a planted QR code count; files that cannot be decoded have no label.
"""

from __future__ import annotations

import datetime
import json
import tempfile
from collections import Counter
from pathlib import Path

import clipsieve
from clipsieve import demo
from clipsieve.demo.scenes import COLOURS, SHAPES
from clipsieve.demo.truth import TruthRow

SOURCES = {"documents": "documents.parquet", "pairs": "pairs.jsonl"}
THINGS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
ASKED = {
    "colour": (list(COLOURS), "a photo of something {}"),
    "shape": (list(SHAPES), "a photo of a {}"),
    "colour and shape": (THINGS, "a photo of a {}"),
}


def true_label(asked: str, row: TruthRow) -> str:
    """What the single object of an image is."""
    colour, shape = row["colours"][0], row["shapes"][0]
    return {"colour": colour, "shape": shape, "colour and shape": f"{colour} {shape}"}[asked]


def main() -> None:
    right: dict[str, Counter[str]] = {asked: Counter() for asked in ASKED}
    scenes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        demo.generate(Path(folder), seed=0)
        truth = demo.read_truth(Path(folder) / "truth.jsonl")
        for data_set, source in SOURCES.items():
            run = clipsieve.run(read=f"{folder}/{source}", model="demo", vectors=True, out=f"{folder}/{data_set}")
            single = {
                (row["sample_id"], row["image"]): row
                for row in truth
                if row["data_set"] == data_set and row["single_object"] and row["fault"] != "undecodable"
            }
            scenes.update(row["fault"] or "clean" for row in single.values())
            for asked, (labels, template) in ASKED.items():
                ledger = clipsieve.label(run, labels=labels, templates=[template]).ledger
                for found in ledger.select(["sample_id", "image", "label"]).to_pylist():
                    row = single.get((found["sample_id"], found["image"]))
                    if row is not None:
                        right[asked][row["fault"] or "clean"] += found["label"] == true_label(asked, row)
    results = {
        "date": datetime.date.today().isoformat(),
        "scenes with a single object": {"all": scenes.total(), **scenes},
        **{f"right: {asked}": {"all": f"{r.total() / scenes.total():.1%}", **r} for asked, r in right.items()},
    }
    print(json.dumps(results, indent=2))
    target = Path(__file__).parent / "results" / f"{results['date']}-demo-labels.json"
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
