"""What 10 million, 1 billion and 10 billion images take: measured per image here, modelled, and simulated.

``python benchmarks/scale.py [PHOTOS]`` measures what an image costs outside the encoder with a run over photographs (or
generated scenes), then prints and stores the model's answer for clusters of three sizes, each beside a simulation
of its first shards. The encoder's rate is not measured: give that of your GPU with ``--encoder`` (pairs a second).
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tarfile
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from _machine import machine
from _plan import Cluster, Costs, balanced, estimate, seconds_a_shard, simulate, stages
from rich.console import Console
from rich.table import Table

import clipsieve
from clipsieve.demo.scenes import draw_scene, render

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
sys.path.insert(0, str(ROOT / "tools"))

IMAGES = 1024
ENCODER = 4000.0
"""Pairs a second that a GPU encodes in fp16, ViT-B/32: an assumption, a tenth of what its arithmetic allows."""

STORED = 65_536.0
"""Bytes of a stored image, as web images of 512 pixels have."""

SIZES = {
    10e6: Cluster(cores=16, cores_a_machine=16, encoders=1),
    1e9: Cluster(cores=64, encoders=8),
    10e9: Cluster(cores=64, encoders=64),
}
SIMULATED = 60
"""Shards for each core that are simulated, or all where there are fewer."""


def pictures(photos: Path) -> tuple[list[tuple[bytes, str]], str]:
    """Stored images with captions, and what they are."""
    if (photos / "captions.jsonl").is_file():
        rows = [json.loads(line) for line in (photos / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
        found = [((photos / row["image"]).read_bytes(), row["captions"][0]) for row in rows]
        return found, "photographs of 640 x 480"
    chance = random.Random(0)
    found = []
    for _ in range(100):
        scene, file = draw_scene(chance), io.BytesIO()
        render(scene).save(file, "JPEG", quality=90)
        found.append((file.getvalue(), scene.caption))
    return found, "generated scenes of 256 to 640 pixels"


def write_tar(found: list[tuple[bytes, str]], path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(IMAGES):
            image, caption = found[number % len(found)]
            for ending, data in (("jpg", image), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def measured(found: list[tuple[bytes, str]], folder: Path) -> dict[str, float]:
    """Seconds and bytes an image, of a run on one image thread; what the encoder takes is left out."""
    from make_random_clip import make_clip

    write_tar(found, folder / "photos.tar")
    run = clipsieve.run(
        read=str(folder / "photos.tar"),
        keep=["blur >= 100", "qr_code <= 0.05", "clip_score >= -1"],
        write=f"webdataset:{folder / 'curated'}",
        model=str(make_clip(folder / "model", layers=1)),
        vectors=True,
        workers=1,
        out=folder / "run",
    )
    seconds = {stage["stage"]: stage["seconds"] / IMAGES for stage in run.summary["stages"]}
    encoding = sum(seconds.pop(stage) for stage in ("encode images", "encode texts"))
    writing = seconds.pop("decide and write")
    size = {name: sum(file.stat().st_size for file in (run.path / name).iterdir()) for name in ("ledger", "vectors")}
    return {
        "before the encoder, ms": 1000 * sum(seconds.values()),
        "of it": {stage: round(1000 * spent, 3) for stage, spent in seconds.items()},
        "decide and write, ms": 1000 * writing,
        "one layer of the encoder, ms": 1000 * encoding,
        "ledger bytes": size["ledger"] / IMAGES,
        "vector bytes": size["vectors"] / IMAGES / 2,
    }


def costs(found: dict[str, Any], encoder: float) -> Costs:
    return Costs(
        prepare=found["before the encoder, ms"] / 1000,
        write=found["decide and write, ms"] / 1000,
        encoder=encoder,
        image_bytes=STORED,
        ledger_bytes=found["ledger bytes"],
        vector_bytes=found["vector bytes"],
        shard_images=min(1024, 64 * 2**20 / STORED),
        # From results/*-duplicates-300000.json, two cores: 300,000 vectors exactly in 90 s.
        pair=90.31 * 2 / (300_000**2 / 2),
        assign=2 * 512 / 30e9,  # multiplications and additions at 30 GFLOPS a core
    )


def planned(per_image: Costs) -> list[dict[str, Any]]:
    found = []
    for images, given in SIZES.items():
        cluster = balanced(per_image, given)
        answer = estimate(images, per_image, cluster)
        shards = int(min(SIMULATED * cluster.cores, answer.shards))
        model = max(seconds_a_shard(per_image, cluster).values()) * shards
        found.append(
            {
                **asdict(answer),
                "a shard, s": asdict(stages(per_image, cluster)),
                "simulated shards": shards,
                "simulated over modelled": round(simulate(per_image, cluster, shards) / model, 3),
            }
        )
    return found


def show(plans: list[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold")
    columns = [
        "images",
        "GPUs",
        "cores",
        "hours",
        "GPU hours while scoring",
        "core hours",
        "bound by",
        "dedup",
        "Gbit/s",
        "requests/s",
    ]
    for column in [*columns, "ledger GB", "vectors GB", "driver GB", "simulated / modelled"]:
        table.add_column(column, justify="right")
    for plan in plans:
        table.add_row(
            f"{plan['images']:.0e}",
            str(plan["cluster"]["encoders"]),
            str(plan["cluster"]["cores"]),
            f"{plan['hours']:.1f}",
            f"{plan['gpu_hours']:,.0f}",
            f"{plan['core_hours']:,.0f}",
            plan["bottleneck"],
            f"{plan['dedup']}, {plan['dedup_core_hours']:,.0f} core hours",
            f"{plan['network'] * 8 / 1e9:.1f}",
            f"{plan['requests']:,.0f}",
            f"{plan['ledger'] / 1e9:,.0f}",
            f"{plan['vectors'] / 1e9:,.0f}",
            f"{plan['driver'] / 1e9:,.1f}",
            f"{plan['simulated over modelled']:.2f}",
        )
    Console(width=200).print(table)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("photos", nargs="?", type=Path, default=PHOTOS)
    arguments.add_argument("--encoder", type=float, default=ENCODER, help="pairs a second that a GPU encodes")
    asked = arguments.parse_args()
    found, made_of = pictures(asked.photos)
    with tempfile.TemporaryDirectory() as folder:
        per_image = measured(found, Path(folder))
    plans = planned(costs(per_image, asked.encoder))
    show(plans)
    result = {
        "date": str(date.today()),
        "machine": machine("numpy", "opencv-python-headless", "pillow", "simpy"),
        "images": made_of,
        "measured, an image": per_image,
        "assumed": {"pairs a second of a GPU": asked.encoder, "bytes of a stored image": STORED, "kept": Cluster.kept},
        "plans": plans,
    }
    path = ROOT / "benchmarks" / "results" / f"{date.today()}-scale.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
