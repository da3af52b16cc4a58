"""The commands as a user types them: what they print, where they write, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clipsieve import cli
from tests.fakes import image_bytes


@pytest.fixture
def captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three caption rows: a sharp image, a blurred one, a missing one. The test works in their folder."""
    (tmp_path / "sharp.png").write_bytes(image_bytes("red"))
    (tmp_path / "blurred.png").write_bytes(image_bytes("red", sharp=False))
    rows = [{"image": f"{name}.png", "caption": f"a {name} image"} for name in ("sharp", "blurred", "missing")]
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return path


def clipsieve(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs a command in this process and gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["clipsieve", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_recipe_by_flags_prints_the_funnel_and_writes(
    captions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        clipsieve(monkeypatch, "run", "--read", "captions.jsonl", "--keep", "blur >= 100", "--write", "jsonl:kept") == 0
    )
    printed = capsys.readouterr()
    assert "captions layout" in printed.err
    assert "images          3 = 1 kept + 1 dropped + 1 failed" in printed.out
    assert Path("kept/00000.jsonl").read_text() == captions.read_text().splitlines(keepends=True)[0]
    assert pq.read_table("clipsieve-run/ledger")["verdict"].to_pylist() == ["kept", "dropped", "failed"]


def test_yaml_and_flags_build_the_same_recipe(captions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("recipe.yaml").write_text("read: captions.jsonl\nkeep: [blur >= 100]\nwrite: {jsonl: kept}\n")
    assert clipsieve(monkeypatch, "run", "recipe.yaml", "-q") == 0
    # The same recipe by flags finds the run and resumes it.
    flags = ("--read", "captions.jsonl", "--keep", "blur >= 100", "--write", "jsonl:kept")
    assert clipsieve(monkeypatch, "run", *flags, "-q") == 0
    # So does the recipe that the run wrote down.
    assert clipsieve(monkeypatch, "run", "clipsieve-run/recipe.yaml", "-q") == 0


def test_a_resume_under_another_version_says_so(
    captions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clipsieve(monkeypatch, "run", "--read", "captions.jsonl", "--keep", "blur >= 100", "-q")
    recipe = Path("clipsieve-run/recipe.yaml")
    recipe.write_text(recipe.read_text().replace("pillow: ", "pillow: 0.0."))
    assert clipsieve(monkeypatch, "run", "--read", "captions.jsonl", "--keep", "blur >= 100") == 0
    assert "warning: this run began with pillow 0.0." in capsys.readouterr().err


def test_a_column_named_like_a_score_is_not_replaced(
    captions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captions.write_text('{"image": "sharp.png", "caption": "a", "width": 999}\n')
    flags = ("--read", "captions.jsonl", "--keep", "width >= 1", "--write", "jsonl:kept", "--scores")
    assert clipsieve(monkeypatch, "run", *flags) == 1
    assert "the source has columns named like scores (width)" in capsys.readouterr().err


def test_json_is_one_object_that_adds_up(
    captions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clipsieve(monkeypatch, "run", "--read", "captions.jsonl", "--keep", "blur >= 100", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"] == {"total": 3, "kept": 1, "dropped": 1, "failed": 1}
    assert printed["dropped_by"] == {"blur >= 100": 1}
    assert printed["errors"] == {"missing: no such file": 1}


def test_show_prints_the_scores_and_the_errors(
    captions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # wide enough for a long temporary folder
    clipsieve(monkeypatch, "run", "--read", "captions.jsonl", "--keep", "blur >= 100", "-q")
    assert clipsieve(monkeypatch, "show") == 0
    printed = capsys.readouterr().out
    assert "cannot be scored (NaN): blur 1" in printed
    words = " ".join(printed.split())
    assert "images error for example 1 missing " in words
    assert "missing.png: no such file" in words


def test_plan_lists_the_stages_cheap_first_and_estimates(
    captions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.yaml").write_text(
        "read: captions.jsonl\nkeep: [qr_code <= 0.05, blur >= 100, words >= 2]\nwrite: {jsonl: kept}\n"
    )
    assert clipsieve(monkeypatch, "plan", "recipe.yaml") == 0
    printed = capsys.readouterr().out
    assert printed.index("words") < printed.index("blur") < printed.index("qr_code")
    assert "3 samples, 3 images" in printed
    assert not Path("kept").exists()


def test_a_limit_takes_the_first_samples(captions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clipsieve(monkeypatch, "run", "--read", "captions.jsonl", "--keep", "blur >= 100", "--limit", "2", "-q") == 0
    assert pq.read_table("clipsieve-run/ledger")["verdict"].to_pylist() == ["kept", "dropped"]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("run", "--read", "no.jsonl"), 1, "error: no.jsonl: no matching files"),
        (("run", "no.yaml"), 2, "error: no recipe at no.yaml"),
        (
            ("run", "--read", "captions.jsonl", "--keep", "blurr >= 1"),
            2,
            "error: unknown score 'blurr'; did you mean 'blur'?",
        ),
        (("run", "--read", "captions.jsonl", "--text", "no"), 2, "'no'"),
        (("run", "captions.jsonl"), 2, "to read it as data, use --read captions.jsonl"),
        (("run", "--read", "captions.jsonl", "--write", "kept/"), 2, "begin with the format, such as webdataset:kept/"),
        (
            ("run", "--read", "captions.jsonl", "--write", "parquet:clipsieve-run/ledger"),
            1,
            "error: clipsieve-run/ledger is the run folder's own; choose another folder for the output",
        ),
        (("run", "--read", "captions.jsonl", "--on-error", "stop"), 3, "error: stopped at shard 0, row 2"),
        (("show", "nowhere"), 1, "error: no run at nowhere: there is no such folder"),
        (("run", "--bogus"), 2, "No such option"),
    ],
)
def test_a_wrong_request_is_one_clear_line_and_an_exit_code(
    captions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    line: str,
) -> None:
    assert clipsieve(monkeypatch, *arguments) == code
    printed = capsys.readouterr().err
    assert line in printed
    assert "Traceback" not in printed


def test_help_answers_without_loading_anything_heavy() -> None:
    code = "import sys; from clipsieve import cli; print([m for m in ('torch', 'cv2', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
