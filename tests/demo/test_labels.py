"""Colours and shapes of generated scenes with a single object are named without a caption."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import clipsieve
from clipsieve import demo
from clipsieve.demo.scenes import COLOURS, SHAPES

SEED = 90210  # used by no training and no threshold
RIGHT = 0.95


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated pairs, and a run of them that kept the vectors."""
    folder = tmp_path_factory.mktemp("labels") / "data"
    demo.generate(folder, seed=SEED, documents=1, pairs=240)
    clipsieve.run(read=str(folder / "pairs.jsonl"), model="demo", vectors=True, out=folder / "run")
    return folder


@pytest.mark.parametrize(
    ("attribute", "labels", "template"),
    [("colours", COLOURS, "a photo of something {}"), ("shapes", SHAPES, "a photo of a {}")],
)
def test_single_objects_are_named(data: Path, attribute: str, labels: tuple[str, ...], template: str) -> None:
    command = ["label", str(data / "run"), "--labels", ",".join(labels), "--template", template, "-q"]
    subprocess.run([sys.executable, "-m", "clipsieve.cli", *command], check=True)

    truth = {
        (row["sample_id"], row["image"]): row[attribute][0]  # type: ignore[literal-required]
        for row in demo.read_truth(data / "truth.jsonl")
        if row["data_set"] == "pairs" and row["single_object"] and row["fault"] != "undecodable"
    }
    found = clipsieve.Run.open(data / "run").ledger.select(["sample_id", "image", "label"]).to_pylist()
    named = {key: row["label"] for row in found if (key := (row["sample_id"], row["image"])) in truth}
    assert len(named) == len(truth) > 50
    assert sum(named[key] == true for key, true in truth.items()) >= RIGHT * len(truth)
