"""``clipsieve tune`` and ``clipsieve apply`` as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import clipsieve
from clipsieve import demo


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    demo.generate(folder, documents=5, pairs=60)
    keep = ["blur >= 100", "clip_score >= 0.5"]
    clipsieve.run(read=str(folder / "pairs.jsonl"), model="demo", keep=keep, write="jsonl", out=folder / "run")
    return folder / "run"


def clipsieve_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clipsieve.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tune_prints_the_funnel_before_and_after(run: Path) -> None:
    done = clipsieve_command("tune", run, "--keep", "blur >= 2", "--keep", "clip_score >= 0.58")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["run:", "out", "left", "now:", "out", "left"]
    assert ["images", "read", "60", "60"] in lines
    assert any(line[:3] == ["clip_score", ">=", "0.58"] for line in lines)
    assert "images are not known: the run did not compute clip_score" in done.stdout


def test_tune_proposes_thresholds(run: Path) -> None:
    done = clipsieve_command("tune", run, "--suggest", "clip_score=50%", "--json")
    told = json.loads(done.stdout)
    (suggested,) = told["suggested"]
    assert suggested["rule"].startswith("clip_score >= ")
    assert told["keep"][-1]["rule"] == suggested["rule"]
    assert told["images"][1]["kept"] < told["images"][0]["kept"]


def test_apply_writes_the_selection(run: Path, tmp_path: Path) -> None:
    keep = ["--keep", "blur >= 100", "--keep", "clip_score >= 0.58"]
    told = json.loads(clipsieve_command("tune", run, *keep, "--json").stdout)
    out = ["--write", f"jsonl:{tmp_path / 'kept.jsonl'}", "--out", tmp_path / "applied"]
    done = clipsieve_command("apply", run, *keep, *out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"]["kept"] == told["images"][1]["kept"]
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == told["images"][1]["kept"]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["tune", "--keep", "blurr >= 1"], 2, "unknown score 'blurr'; did you mean 'blur'?"),
        (["tune", "--suggest", "300%"], 2, "give a share between 0 and 100%"),
        (["apply", "--keep", "blur >= 2", "--keep", "clip_score >= 0.5"], 1, "--fill computes those"),
    ],
)
def test_a_wrong_request_is_one_line(run: Path, arguments: list[str], code: int, line: str) -> None:
    done = clipsieve_command(arguments[0], run, *arguments[1:])
    assert done.returncode == code
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
