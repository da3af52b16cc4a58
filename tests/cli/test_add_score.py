"""``clipsieve add-score`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipsieve import demo
from tests.cli.test_cli import clipsieve


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run of 20 generated pairs, ``run``, in the folder that the test works in."""
    monkeypatch.chdir(tmp_path)
    demo.generate(Path("data"), documents=4, pairs=20)
    command = ("run", "--read", "data/pairs.jsonl", "--model", "demo", "--keep", "clip_score >= 0", "--vectors", "-q")
    assert clipsieve(monkeypatch, *command, "--out", "run") == 0


def test_it_prints_the_percentiles_and_the_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("add-score", "run", "neg_clip_loss", "--option", "tau=0.02", "--option", "seed=1")
    assert clipsieve(monkeypatch, *command) == 0
    printed = capsys.readouterr()
    assert "images of run, by their vectors" in printed.err
    assert "median" in printed.out
    assert "added   run/added/neg_clip_loss   (clipsieve show run)" in printed.out
    assert clipsieve(monkeypatch, "show", "run") == 0
    assert "neg_clip_loss" in capsys.readouterr().out


def test_json_is_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert clipsieve(monkeypatch, "add-score", "run", "nearest_similarity", "--json") == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["score"], found["added"], printed.err) == ("nearest_similarity", "run/added/nearest_similarity", "")
    assert found["values"] + found["missing"] + found["not_computed"] == 20
    assert -1 <= found["percentiles"]["50"] <= 1


def test_quiet_prints_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert clipsieve(monkeypatch, "add-score", "run", "nearest_similarity", "-q") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("run", "nearest"), "error: unknown score 'nearest'"),
        (("run", "neg_clip_loss", "--option", "tua=1"), "error: neg_clip_loss: no option 'tua'; did you mean 'tau'?"),
        (
            ("run", "neg_clip_loss", "--option", "tau=a[b]\x1b"),
            r"error: neg_clip_loss: tau is a number, not 'a[b]\x1b'",
        ),
    ],
)
def test_a_wrong_request_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str
) -> None:
    assert clipsieve(monkeypatch, "add-score", *arguments) == 2
    assert line in capsys.readouterr().err
    assert not Path("run/added").exists()
