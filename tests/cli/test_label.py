"""``clipsieve label`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.cli.test_cli import clipsieve
from tests.fakes import image_bytes


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images and a broken one. The test works in their parent's folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in ("red", "green", "blue"):
        (folder / f"{colour}.png").write_bytes(image_bytes(colour))
    (folder / "x[bold]y.png").write_bytes(b"broken")
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_source_becomes_a_run_that_is_labelled_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("--labels", "red, green,blue", "--template", "something {}", "--template", "a photo of something {}")
    assert clipsieve(monkeypatch, "label", "photos", *labels, "--model", "demo", "--vectors", "--out", "run") == 0
    printed = capsys.readouterr().out
    assert "  red.png\n" in printed
    assert "-      -      x[bold]y.png" in printed
    assert "not labelled: 1 (cannot be read)" in printed
    assert "labels  run/ledger   (clipsieve show run)" in printed

    Path("labels.txt").write_text("a red star\n\na blue ring\n")
    again = ("label", "run", "--labels-file", "labels.txt", "--all", "--sheet", "sheets/labels.png")
    assert clipsieve(monkeypatch, *again) == 0
    printed = capsys.readouterr().out
    assert "sheet   sheets/labels.png   (3 images)" in printed
    assert "labels  run/added/label   (clipsieve show run)" in printed
    assert Image.open("sheets/labels.png").width > 600
    added = pq.read_table("run/added/label")
    assert added.column_names == ["label", "label_probability", "label_probabilities"]
    assert clipsieve(monkeypatch, "show", "run") == 0
    assert "label_probability" in capsys.readouterr().out


def test_json_is_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("label", "photos", "--labels", "red,blue", "--min-probability", "1", "--model", "demo", "--json")
    assert clipsieve(monkeypatch, *command) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert sum(found["labels"].values()) == 3
    assert set(found["labels"]) <= {"red", "blue", "none of these"}
    assert (found["unlabelled"], found["images"]["failed"], printed.err) == (1, 1, "")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((), 'error: say the labels: --labels "cat,dog", or --labels-file'),
        (("--labels", " , "), 'error: say the labels: --labels "cat,dog", or --labels-file'),
        (("--labels", "a,b", "--sheet", "x.txt"), "error: a contact sheet is a picture"),
        (("--labels", "a,b", "--sheet-size", "5"), "error: --sheet-size goes with --sheet"),
    ],
)
def test_a_wrong_request_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], line: str
) -> None:
    assert clipsieve(monkeypatch, "label", "photos", *flags) == 2
    assert line in capsys.readouterr().err
    assert not Path("clipsieve-run").exists()


def test_flags_of_a_source_do_not_go_with_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("--labels", "red,blue")
    assert clipsieve(monkeypatch, "label", "photos", *labels, "--model", "demo", "--vectors", "--out", "run", "-q") == 0
    assert clipsieve(monkeypatch, "label", "run", *labels, "--out", "other", "--on-error", "stop") == 2
    assert "run is a finished run and labelled as it is; leave out --out, --on-error" in capsys.readouterr().err
