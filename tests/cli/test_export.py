"""``clipsieve export`` as a user types it, and as ``docs/exports.md`` says it."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

import clipsieve as package
from tests.cli.test_cli import clipsieve
from tests.fakes import image_bytes

PAGE = (Path(__file__).parents[2] / "docs" / "exports.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``clipsieve-run``: of three images two are kept, one of them gone since."""
    folder = tmp_path_factory.mktemp("export")
    rows = []
    for i, colour in enumerate(("red", "green", "blue")):
        (folder / f"{colour}.png").write_bytes(image_bytes(colour, sharp=colour != "blue"))
        rows.append({"uid": f"{i:032x}", "image": f"{colour}.png", "caption": f"a {colour} thing"})
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    package.run(
        read=str(folder / "rows.jsonl"), model="demo", keep=["blur >= 100", "clip_score >= -1"], vectors=True,
        out=folder / "clipsieve-run",
    )  # fmt: skip
    (folder / "green.png").rename(folder / "moved.png")
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder to work in, with the run in it."""
    (tmp_path / "clipsieve-run").symlink_to(finished / "clipsieve-run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_was_written_and_what_is_missing_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clipsieve(monkeypatch, "export", "clipsieve-run", "--to", "datasets:curated/") == 0
    assert capsys.readouterr().out == "2 rows   curated\n1 image unreadable: `image` is null\n"
    assert clipsieve(monkeypatch, "export", "clipsieve-run", "--to", "csv:x.csv", "--verdict", "dropped", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"path": "x.csv", "rows": 1, "notes": []}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["--to", "cvs:x.csv"],
            2,
            "error: --to cvs:x.csv: give FORMAT:PATH, such as csv:ledger.csv; did you mean csv:",
        ),
        (["--to", "datacomp:x.npy", "--uid", "caption"], 2, "has the id 'a red thing'; name the column"),
        (["--to", "csv:x.csv", "--verdict", "failed"], 1, "has no failed images to export"),
    ],
)
def test_a_refusal_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], code: int, said: str,
) -> None:  # fmt: skip
    assert clipsieve(monkeypatch, "export", "clipsieve-run", *arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (here / "x.csv").exists()


def test_the_commands_and_the_python_of_the_documentation_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    ours = [shlex.split(line)[1:] for line in commands if line.startswith("clipsieve ")]
    assert len(ours) == 5
    for arguments in ours:
        assert clipsieve(monkeypatch, *arguments) == 0
    if importlib.util.find_spec("datasets"):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(here / "cache"))
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    for code in blocks:
        needed = re.findall(r"^import (\w+)", code, re.MULTILINE)
        if needed != ["fiftyone"] and all(importlib.util.find_spec(name) for name in needed):
            exec(compile(code, "docs/exports.md", "exec"), {})
