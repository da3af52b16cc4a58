"""``clipsieve report``, ``run --report`` and the facts of ``clipsieve show``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import clipsieve
from tests.fakes import image_bytes


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images and a broken one. The test works in their folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    for colour in ("red", "blue"):
        (folder / f"{colour}.png").write_bytes(image_bytes(colour))
    (folder / "broken\x1b[31m.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_run_writes_its_report_when_asked(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clipsieve(monkeypatch, "run", "--read", "images", "--keep", "blur >= 100", "--report") == 0
    assert "report  clipsieve-run/report.html" in capsys.readouterr().out
    assert Path("clipsieve-run/report.html").read_text().startswith("<!doctype html>")


def test_a_report_goes_where_it_is_said(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clipsieve(monkeypatch, "run", "--read", "images", "--keep", "blur >= 100", "-q")
    capsys.readouterr()
    assert clipsieve(monkeypatch, "report", "clipsieve-run", "-o", "there/out.html", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"report": "there/out.html", "bytes": Path("there/out.html").stat().st_size, "images": 2,
                    "without_pictures": None}  # fmt: skip
    assert not Path("clipsieve-run/report.html").exists()
    assert clipsieve(monkeypatch, "report", "-q") == 0
    assert capsys.readouterr().out == ""
    assert Path("clipsieve-run/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("report", "nowhere"), "error: no run at nowhere: there is no such folder"),
        (("report", "-o", "out.txt"), "error: out.txt would be no HTML file; give a name that ends in .html"),
    ],
)
def test_a_wrong_request_is_one_clear_line(
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    line: str,
) -> None:
    clipsieve(monkeypatch, "run", "--read", "images", "--keep", "blur >= 100", "-q")
    assert clipsieve(monkeypatch, *arguments) == 1
    printed = capsys.readouterr().err
    assert line in printed
    assert "Traceback" not in printed


def test_show_tells_labels_errors_and_how_the_run_was_made(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    clipsieve(monkeypatch, "run", "--read", "images", "--model", "demo", "--vectors", "--dedup", "0.99", "-q")
    clipsieve(monkeypatch, "label", "clipsieve-run", "--labels", "a star,a circle", "-q")
    summary = Path("clipsieve-run/summary.json")
    stages = {"stages": [{"stage": "encode images", "seconds": 61.5}], "timed_images": 3}
    summary.write_text(json.dumps({**json.loads(summary.read_text()), **stages}))
    capsys.readouterr()
    assert clipsieve(monkeypatch, "show") == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    for words in (
        "median probability", "dedup   vectors", "model     demo (fp32-", "settings  precision auto",
        "versions  python", "source    images (captions)", "encode images  1 min 2 s", "time ",
    ):  # fmt: skip
        assert words in printed, words
    (error,) = [line for line in lines if "undecodable" in line]
    assert "\x1b" not in printed
    assert error.split()[:2] == ["1", "undecodable"]
    assert "of the last command" not in printed  # it timed all images of the run


def test_show_gives_machines_what_it_tells_people(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clipsieve(monkeypatch, "run", "--read", "images", "--keep", "blur >= 100", "--model", "demo", "--vectors", "-q")
    clipsieve(monkeypatch, "label", "clipsieve-run", "--labels", "a star,a circle", "-q")
    capsys.readouterr()
    assert clipsieve(monkeypatch, "show", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"]["kept"], told["dropped_by"]) == (2, {})
    blur = told["scores"]["blur"]
    assert (blur["unit"], blur["values"], blur["nan"], blur["null"]) == ("image", 2, 1, 0)
    assert list(blur["percentiles"]) == ["1", "5", "50", "95", "99"]
    assert sum(one["images"] for one in told["labels"]) == 2
    assert told["stages"].keys() >= {"encode images"}
    assert (told["model"], told["unfinished"]) == ("demo", None)
    assert told["versions"]["python"]


def test_a_report_without_pictures_says_why(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clipsieve(monkeypatch, "run", "--read", "images", "--keep", "blur >= 100", "-q")
    (images / "red.png").unlink()
    capsys.readouterr()
    assert clipsieve(monkeypatch, "report", "--json") == 0
    printed = capsys.readouterr()
    reason = f"the source has changed since this run began ({images / 'red.png'})"
    assert json.loads(printed.out)["without_pictures"].endswith("red.png)")
    assert printed.err == f"warning: {reason}: its images cannot be shown\n"
    assert clipsieve(monkeypatch, "export", "--to", "datasets:out/") == 1
    assert capsys.readouterr().err == f"error: {reason}: its images cannot be exported\n"
    images.rename("moved")
    assert clipsieve(monkeypatch, "report", "-q") == 0
    assert capsys.readouterr().err == "warning: images: no matching files: its images cannot be shown\n"


def test_show_says_of_an_unfinished_run_how_far_it_got(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.yaml").write_text("read: {path: images, shard_bytes: 1}\nkeep: [blur >= 100]\n")
    clipsieve(monkeypatch, "run", "r.yaml", "-q")
    parts = sorted(Path("clipsieve-run/ledger").iterdir())
    assert len(parts) > 1
    parts[-1].unlink()
    capsys.readouterr()
    assert clipsieve(monkeypatch, "show") == 0
    assert f"unfinished: {len(parts) - 1} of {len(parts)} shards are done" in capsys.readouterr().out
