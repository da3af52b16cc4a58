"""What the scores say of real photographs with known truth: QR codes, blur, odd files; from the ledgers of runs.

``python benchmarks/photographs.py [PHOTOS [MODEL]]`` takes the folder of photographs with its ``labels.json`` files and
a model (ViT-B/32 with random weights when none is named, which only its speed means something of).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import clipsieve

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
QR_THRESHOLD, BLUR_THRESHOLD = 0.05, 100


def by_name(run: clipsieve.Run, photos: Path) -> dict[str, dict[str, object]]:
    """The ledger's rows by the path of their image within the folder of photographs."""
    return {str(Path(row["reference"]).relative_to(photos)): row for row in run.ledger.to_pylist()}


def auc(low: np.ndarray, high: np.ndarray) -> float:
    """Chance that one of ``high`` scores above one of ``low``; ties count half (Mann-Whitney)."""
    return float((high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean())


def main(photos: Path, model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sources = ("captions.jsonl", "shuffled_pairs.jsonl", "qr", "blur", "odd", "dedup")
        runs = {
            name: clipsieve.score(str(photos / name), model=model, out=Path(folder) / name.partition(".")[0])
            for name in sources
        }
        for name, run in runs.items():
            counts, seconds = run.counts.images, run.summary["scoring_seconds"]
            print(
                f"{name:<22}{counts.total:4} images = {counts.kept} scored + {counts.failed} failed, "
                f"{counts.total / seconds:5.1f} images/s"
            )

        rows = by_name(runs["qr"], photos)
        labels = {label["file"]: label for label in json.loads((photos / "qr/labels.json").read_text())}
        found = [name for name in labels if rows[name]["qr_code"] > 0]
        over = [name for name in labels if rows[name]["qr_code"] > QR_THRESHOLD]
        large = [name for name, label in labels.items() if (label["box_area_fraction"] or 1) > QR_THRESHOLD]
        false = sum(value > 0 for value in runs["captions.jsonl"].ledger["qr_code"].to_pylist())
        print(f"qr_code: found in {len(found)} of {len(labels)} photographs with codes")
        print(f"  over {QR_THRESHOLD}: {len(over)}, of {len(large)} labelled so; on photographs without codes: {false}")

        rows |= by_name(runs["blur"], photos)
        labels = {label["file"]: label["label"] for label in json.loads((photos / "blur/labels.json").read_text())}
        blurred, sharp = (
            np.array([rows[name]["blur"] for name, label in labels.items() if label == kind])
            for kind in ("blurred", "sharp")
        )
        print(
            f"blur: AUC {auc(blurred, sharp):.3f} ({len(sharp)} sharp, {len(blurred)} blurred); at {BLUR_THRESHOLD} "
            f"drops {(blurred < BLUR_THRESHOLD).sum()} blurred and {(sharp < BLUR_THRESHOLD).sum()} sharp"
        )

        rows = by_name(runs["odd"], photos)
        labels = json.loads((photos / "odd/labels.json").read_text())
        right = [label["file"] for label in labels if (rows[label["file"]]["verdict"] == "kept") == label["decodes"]]
        print(f"odd files: {len(right)} of {len(labels)} verdicts as labelled")
        for label in labels:
            if not label["decodes"]:
                print(f"  {label['file']}: {rows[label['file']]['error']}")

        pairs = [np.array(runs[name].ledger["clip_score"]) for name in ("shuffled_pairs.jsonl", "captions.jsonl")]
        print(f"clip_score: AUC {auc(*pairs):.3f} of true against shuffled captions (0.5 is chance)")


if __name__ == "__main__":
    named = Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOS
    if len(sys.argv) > 2:
        main(named, sys.argv[2])
    else:
        sys.path.insert(0, str(ROOT / "tools"))
        from make_random_clip import make_clip

        with tempfile.TemporaryDirectory() as random_model:
            main(named, str(make_clip(Path(random_model))))
