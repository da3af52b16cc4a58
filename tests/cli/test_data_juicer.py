"""``clipsieve run`` and ``plan`` with a recipe of Data-Juicer's."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.test_cli import clipsieve
from tests.fakes import image_bytes

YAML = """\
project_name: pairs
dataset_path: data/pairs.jsonl
export_path: out/kept.jsonl
np: 1
process:
  - image_pair_similarity_filter: {hf_clip: demo, min_score: 0.85, max_score: 1.0, any_or_all: any}
"""

PAIRS = {
    "alike": ["red.png", "red2.png"],
    "unlike": ["red.png", "green.png"],
    "broken": ["red.png", "broken.png"],
    "single": ["red.png"],
    "none": [],
}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe, and a data set in a folder of its own with the images beside it."""
    data = tmp_path / "data"
    data.mkdir()
    for name, image in (("red", image_bytes()), ("red2", image_bytes(seed=1)), ("green", image_bytes("green"))):
        (data / f"{name}.png").write_bytes(image)
    (data / "broken.png").write_bytes(image_bytes()[:40])
    rows = [{"text": text, "images": images} for text, images in PAIRS.items()]
    (data / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "dj.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)


def verdicts(run: str) -> dict[int, tuple[str, set[str]]]:
    """Verdict of each sample, and the reasons and errors of its rows."""
    found: dict[int, tuple[str, set[str]]] = {}
    for row in pq.read_table(f"{run}/ledger").to_pylist():
        found.setdefault(row["sample"], (row["sample_verdict"], set()))[1].update(
            filter(None, (row["reason"], row["error"]))
        )
    return found


def test_its_recipe_runs_like_any_other(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert clipsieve(monkeypatch, "run", "dj.yaml", "--out", "run") == 0

    printed = capsys.readouterr()
    assert "ignored, since no result depends on it: project_name" in printed.err
    assert "samples         5 = 1 kept + 3 dropped + 1 failed" in printed.out
    kept = [json.loads(line) for line in Path("out/kept.jsonl").read_text().splitlines()]
    assert kept == [{"text": "alike", "images": PAIRS["alike"]}]
    found = verdicts("run")
    assert [verdict for verdict, _ in found.values()] == ["kept", "dropped", "failed", "dropped", "dropped"]
    assert any("< 0.85" in reason for reason in found[1][1])
    assert any("undecodable" in reason for reason in found[2][1])
    assert any("fewer than two images" in reason for reason in found[3][1])

    # The same command finds the run finished; the recipe that it wrote down is Clipsieve's own and the same one.
    assert clipsieve(monkeypatch, "run", "dj.yaml", "--out", "run", "-q") == 0
    assert clipsieve(monkeypatch, "run", "run/recipe.yaml", "--out", "run", "-q") == 0


def test_a_data_set_and_an_operator_are_enough_and_flags_go_over_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("dj.yaml").write_text("dataset_path: data/pairs.jsonl\nprocess: [image_pair_similarity_filter]\n")
    flags = ("--model", "demo", "--limit", "2", "--scores", "-q")
    assert clipsieve(monkeypatch, "run", "dj.yaml", "--out", "run", *flags) == 0
    (written,) = Path("run/output").iterdir()
    assert [row["text"] for row in map(json.loads, written.read_text().splitlines())] == ["alike", "unlike"]
    assert "pair_similarity" in written.read_text()


def test_plan_shows_its_stages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert clipsieve(monkeypatch, "plan", "dj.yaml") == 0
    printed = capsys.readouterr()
    assert "0.85 <= any(pair_similarity) <= 1.0" in printed.out
    assert "5 samples, 7 images" in printed.out
    assert not Path("out").exists()


def test_what_cannot_be_done_is_one_line_and_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("dj.yaml").write_text("dataset_path: d.jsonl\nprocess: [clean_html_mapper, image_size_filter]\n")
    assert clipsieve(monkeypatch, "run", "dj.yaml") == 2
    printed = capsys.readouterr().err
    assert "clean_html_mapper is not among Clipsieve's" in printed
    assert "image_size_filter is not run; a recipe of Clipsieve's own has a rule on file_bytes" in printed
    assert printed.count("\n") == 1
