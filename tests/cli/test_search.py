"""``clipsieve index`` and ``clipsieve search`` as a user types them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import clipsieve as package
from clipsieve.cli import terminal
from tests.cli.test_cli import clipsieve
from tests.fakes import image_bytes
from tests.pages import Page

HOSTILE = "[bold red]x[/] \x1b[31m<script>alert(1)</script> \u202e&amp; \"quoted\" 'x' " + "long " * 50


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of three images, one with a hostile caption, and their index."""
    folder = tmp_path_factory.mktemp("search")
    rows = []
    for colour, caption in (("red", HOSTILE), ("green", "a green thing"), ("blue", "")):
        (folder / f"{colour}.png").write_bytes(image_bytes(colour))
        rows.append({"image": f"{colour}.png", "caption": caption})
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run = package.run(
        read=str(folder / "rows.jsonl"), model="demo", keep=["width >= 1"], vectors=True, out=folder / "run"
    )
    package.index_run(run, folder / "index")
    return folder


@pytest.fixture(autouse=True)
def here(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(indexed)


def test_indexing_says_what_it_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = str(tmp_path / "fresh")
    assert clipsieve(monkeypatch, "index", "run", "--to", place, "--approximate") == 0
    printed = capsys.readouterr().out
    assert "3 images = 3 added + 0 updated + 0 unchanged; 3 rows in the index" in printed
    assert "approximate index over 3 rows: recall@10 1.000 against exact search (3 stored vectors)" in printed
    assert clipsieve(monkeypatch, "index", "run", "--to", place, "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["unchanged"], done["rows"], done["approximate"]["recall"]) == (3, 3, 1.0)


def test_piped_results_are_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert clipsieve(monkeypatch, "search", "index", "a red thing", "-k", "3") == 0
    head, *found = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert head == ["similarity", "caption", "reference"]
    (hostile,) = [caption for _, caption, _ in found if "script" in caption]
    assert hostile.endswith("long long")


def test_results_fit_eighty_columns_and_cannot_steer_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal.out, "_force_terminal", True)
    monkeypatch.setattr(terminal.out, "_color_system", None)
    assert clipsieve(monkeypatch, "search", "index", "a red thing", "-k", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["similarity", "caption", "reference"]
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    (hostile,) = [line for line in lines if "script" in line]
    assert r"[bold red]x[/] \x1b[31m<script>" in hostile
    assert "…" in hostile
    assert "red.png" in hostile


def test_json_is_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert clipsieve(monkeypatch, "search", "index", "x", "-k", "2", "--where", "width >= 1", "--json") == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    answer = json.loads(printed)
    assert (answer["index"], answer["rows"], answer["text"], answer["where"]) == ("index", 3, "x", "width >= 1")
    first, second = answer["results"]
    assert first["similarity"] >= second["similarity"]
    assert first.keys() >= {"id", "caption", "reference", "sample_id", "width"}
    assert "thumbnail" not in first


def test_by_image_the_image_itself_is_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clipsieve(monkeypatch, "search", "index", "--image", "green.png", "-k", "1", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["results"]
    assert found["similarity"] == pytest.approx(1.0, abs=1e-6)
    assert found["reference"].endswith("green.png")


def test_the_page_is_whole_in_itself_and_runs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = tmp_path / "pages" / "out.html"
    question = ("red <b>things</b>", "--image", "red.png", "-k", "3", "--where", "width >= 1")
    assert clipsieve(monkeypatch, "search", "index", *question, "--html", str(target)) == 0
    text = target.read_text(encoding="utf-8")
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "b", "link", "iframe", "a", "form"}
    assert all(
        value and value.startswith("data:image/jpeg;base64,")
        for _, a in page.tags
        for n, value in a.items()
        if n == "src"
    )
    assert not any(name.startswith("on") or name in ("style", "href") for _, a in page.tags for name in a)
    assert "url(" not in text
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    words = " ".join(page.words)
    assert "red <b>things</b>" in words
    assert "<script>alert(1)</script>" in words
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(re.findall("<li>", text)) == 3
    assert "width >= 1" in words


def test_nothing_found_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = str(tmp_path / "out.html")
    assert clipsieve(monkeypatch, "search", "index", "x", "--where", "width > 9999", "--html", target) == 0
    assert "no image passes these rules" in capsys.readouterr().out
    assert "No image passes these rules." in Path(target).read_text()


def test_the_python_of_the_documentation_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for code in blocks:
        code = code.replace("images.index", "index").replace("a.jpg", "red.png").replace("clip_score", "width")
        exec(compile(code, "docs/search.md", "exec"), {})
