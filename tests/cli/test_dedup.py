"""``clipsieve dedup`` as a command: what it prints, for people and for machines, and that it may be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipsieve import demo

CLIPSIEVE = [sys.executable, "-m", "clipsieve.cli"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, ``run``, of generated pairs of which four are copies of earlier ones."""
    folder = tmp_path_factory.mktemp("dedup")
    demo.generate(folder / "data", documents=4, pairs=80)
    done = clipsieve(
        folder, "run", "--read", "data/pairs.jsonl", "--model", "demo", "--vectors", "--keep", "clip_score >= 0.5",
        "--write", "webdataset", "--out", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def clipsieve(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLIPSIEVE, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run but those that say when it was made."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.name not in (".lock", "summary.json")}


def test_it_prints_the_funnel_and_how_it_searched(folder: Path) -> None:
    done = clipsieve(folder, "dedup", "run", "--threshold", str(demo.DEDUP), "--out", "printed")
    assert done.returncode == 0
    assert "dedup 0.996" in done.stdout
    assert "dedup   vectors, exact search: 69 images compared; 4 near duplicates, in 4 groups" in done.stdout
    assert "output  printed/output" in done.stdout


def test_for_machines_it_is_one_object(folder: Path) -> None:
    done = clipsieve(folder, "dedup", "run", "--method", "exact", "--out", "counted", "--json")
    found = json.loads(done.stdout)
    assert found["dedup"] == {
        "method": "equal bytes", "compared": 69, "against": None, "removed": 0, "groups": 0, "recall": None,
    }  # fmt: skip
    assert found["images"]["kept"] == 69
    assert done.stderr == ""


def test_killed_at_any_time_it_ends_as_if_undisturbed(folder: Path) -> None:
    command = ["dedup", "run", "--threshold", str(demo.DEDUP)]
    assert clipsieve(folder, *command, "--out", "whole").returncode == 0
    began = time.monotonic()
    clipsieve(folder, "--version")
    for wait in (1.3, 1.8):
        process = subprocess.Popen([*CLIPSIEVE, *command, "--out", "killed"], cwd=folder, stdout=subprocess.DEVNULL)
        time.sleep(wait * (time.monotonic() - began))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert clipsieve(folder, *command, "--out", "killed").returncode == 0
    assert contents(folder / "killed") == contents(folder / "whole")


def test_a_password_is_nowhere(folder: Path) -> None:
    url = "clickhouse://me:secret@localhost:1/db.t"
    done = clipsieve(folder, "dedup", "run", "--against", url, "--out", "against")
    assert done.returncode == 1
    assert "secret" not in done.stdout + done.stderr
    assert "clickhouse://me:***@localhost:1/db.t is neither a run folder" in done.stderr
