"""The scripts in ``examples/`` do what they say, run as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import image_bytes

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A red, a green and a blue picture, one that is broken, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for colour in ("red", "green", "blue"):
        (folder / f"{colour}.png").write_bytes(image_bytes(colour))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.jsonl").write_text('{"note": "not an image"}\n')
    return folder


def example(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments], cwd=folder.parent, capture_output=True, text=True, check=False
    )


def printed(folder: Path, script: str, *arguments: str) -> str:
    done = example(folder, script, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_image_is_printed_label_by_label_and_then_the_winner(folder: Path) -> None:
    out = printed(folder, "label_images.py", "pictures", "--labels", "red", "green", "blue", "--model", "demo")
    blocks = {Path(block.splitlines()[0]).stem: block.splitlines()[1:] for block in out.strip().split("\n\n")}
    assert list(blocks) == ["blue", "broken", "green", "red"]
    assert blocks.pop("broken") == ["  undecodable: not an image of a known format"]
    for colour, (*lines, winner) in blocks.items():
        shown = {label: float(percent.rstrip("%")) for percent, label in map(str.split, lines)}
        assert shown.keys() == {"red", "green", "blue"}
        assert sum(shown.values()) == pytest.approx(100, abs=0.01)
        assert max(shown, key=lambda label: shown[label]) == colour
        assert winner == f"  It is: {colour}"


def test_the_labels_are_those_of_the_article_unless_others_are_given(folder: Path) -> None:
    out = " ".join(printed(folder, "label_images.py", "--help").split())
    assert "(default: ['Hero', 'Adele', 'Zombie', 'Painting', 'Villain', 'Water'])" in out


def nearest(out: str) -> dict[str, list[str]]:
    """For each query the names of the images that were found."""
    blocks = [block.splitlines() for block in out.strip().split("\n\n")]
    return {query: [Path(line.split()[1]).stem for line in lines] for query, *lines in blocks}


@pytest.mark.parametrize("index", ["images.index", "chdb"])
def test_a_folder_is_encoded_once_and_then_asked_again(folder: Path, index: str) -> None:
    if index == "chdb":
        index = f"chdb://{folder.parent}/chdb"
    pytest.importorskip("chdb" if index.startswith("chdb") else "lancedb")
    place = ("--index", index)
    first = printed(folder, "search_images.py", "red", "--folder", "pictures", "--model", "demo", "-k", "1", *place)
    assert first.startswith(f"3 images encoded, 1 cannot be read; 3 in {index}\n")
    assert first.count("\n") == 5
    assert "pictures/red.png" in first

    for image in folder.iterdir():
        image.unlink()  # nothing is read again
    again = nearest(printed(folder, "search_images.py", "green", "blue", *place))
    assert {query: names[0] for query, names in again.items()} == {"green": "green", "blue": "blue"}
    assert sorted(again["green"]) == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("label_images.py", ("pictures", "--labels", "red", "--model", "demo"), "two or more"),
        ("search_images.py", ("red", "--index", "nowhere"), "no index at nowhere"),
    ],
)
def test_a_mistake_is_answered_in_one_line(folder: Path, script: str, arguments: tuple[str, ...], message: str) -> None:
    done = example(folder, script, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
