"""What the three tiers of dedup find among photographs with known duplicates, over their thresholds.

``python benchmarks/duplicates_quality.py [PHOTOS]`` takes the folder with ``dedup/ground_truth.json`` and, of which no
two are duplicates, ``images/*.jpg``. The vectors are those of the demo's model, which knows synthetic scenes only, and
of ViT-B/32 with random weights; of a model trained on photographs these figures say nothing.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import clipsieve
from clipsieve import dedup

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
COSINES = (0.80, 0.85, 0.90, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
BITS = (0, 2, 4, 6, 8, 10, 12, 16, 20)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Files with duplicates among them, ``group`` ``(n,)`` tells which; behind them so many that have none."""

    files: list[Path]
    group: npt.NDArray[np.int64]
    others: int

    @classmethod
    def read(cls, photos: Path) -> Truth:
        known = json.loads((photos / "dedup" / "ground_truth.json").read_text())
        names = sorted(
            str(path.relative_to(photos)) for path in (photos / "dedup").glob("*.*") if path.suffix != ".json"
        )
        group = {name: number for number, files in enumerate(known["groups"].values()) for name in files}
        others = sorted((photos / "images").glob("*.jpg"))
        return cls(
            files=[*(photos / name for name in names), *others],
            group=np.array([group.get(name, -1 - i) for i, name in enumerate(names)]),
            others=len(others),
        )


def judged(truth: Truth, near: npt.NDArray[np.bool_], found: dedup.Duplicates) -> dict[str, Any]:
    """Of the pairs that are ``near`` ``(files, files)`` and of the images that were removed, how many are right."""
    n = len(truth.group)
    pairs = np.triu(near[:n, :n], 1)
    alike = np.triu(truth.group[:, None] == truth.group, 1)
    first = np.array([np.flatnonzero(truth.group == group)[0] for group in truth.group])
    surplus = first < np.arange(n)
    removed = found.removed[:n]
    return {
        "pairs found": int((pairs & alike).sum()),
        "recall": round(float((pairs & alike).sum() / alike.sum()), 3),
        "precision": round(float((pairs & alike).sum() / pairs.sum()), 3) if pairs.any() else None,
        "removed rightly": f"{(removed & surplus).sum()} of {surplus.sum()}",
        "removed wrongly": int((removed & ~surplus).sum()),
        "of the other photographs": int(found.removed[n:].sum()),
    }


def tiers(truth: Truth) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """Tier, threshold, and what came of it."""
    files = [str(path) for path in truth.files]
    contents = clipsieve.ContentHash()(files)["content_hash"]
    yield "exact", "", judged(truth, contents[:, None] == contents, dedup.exact(contents.tolist()))

    texts = clipsieve.PerceptualHash()(files)["perceptual_hash"]
    bits = np.array([[(int(a, 16) ^ int(b, 16)).bit_count() for b in texts] for a in texts])
    for limit in BITS:
        found = dedup.perceptual(texts.tolist(), limit)
        yield "perceptual", f"{limit} bits", judged(truth, bits <= limit, found)

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, ROOT / "tools" / "make_random_clip.py", folder], check=True, capture_output=True
        )
        for title, model in (("demo model", "demo"), ("random ViT-B/32", folder)):
            vectors = embedded(files, model)
            cosines = (vectors.astype(np.float64) @ vectors.T.astype(np.float64)).round(5)
            for least in COSINES:
                found = dedup.semantic(vectors, least)
                yield f"semantic, {title}", f"{least:g}", judged(truth, cosines >= least, found)


def embedded(files: list[str], model: str) -> npt.NDArray[np.float32]:
    encoder = clipsieve.load_encoder(model)
    return clipsieve.Batch.from_lists(files, encoder=encoder).image_vectors


def table(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    photos = Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOS
    if not (photos / "dedup" / "ground_truth.json").exists():
        sys.exit(f"no photographs at {photos}: give a folder that holds dedup/ground_truth.json")
    truth = Truth.read(photos)
    rows = [{"tier": tier, "threshold": at, **found} for tier, at, found in tiers(truth)]
    print(f"{len(truth.group)} files with duplicates among them, {truth.others} other photographs\n\n{table(rows)}")
    date = datetime.date.today().isoformat()
    target = ROOT / "benchmarks" / "results" / f"{date}-duplicates-quality.json"
    target.write_text(
        json.dumps({"date": date, "files": len(truth.group), "others": truth.others, "found": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
