"""A small run to look at: colours, a few of them odd, with captions that would like to be markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import clipsieve
from tests.fakes import image_bytes

pytest.importorskip("starlette")

HOSTILE = (
    "<img src=x onerror=\"document.title='hacked'\">",
    "</script><script>document.title='hacked'</script>",
    "a red \u202eorder that turns round\u202c and a tab\t\x1b[31m",
    "javascript:document.title='hacked' " + "long " * 2000,
)
"""Captions that must stay texts."""

HOSTILE_NAME = "b\"><b onclick='x'>bold &amp; red.png"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 41 images: of two that are equal one goes, six are not sharp, one is broken."""
    folder = tmp_path_factory.mktemp("view")
    rows = []
    for number in range(40):
        colour = ("red", "green", "blue", "white")[number % 4]
        size = (48 + 8 * number, 60 + 5 * (number % 7))
        name = HOSTILE_NAME if number == 5 else f"{number:02d}.png"
        (folder / name).write_bytes(
            image_bytes(colour, size, sharp=number not in (1, 2, 3, 13, 14, 15), seed=0 if number < 8 else number)
        )
        caption = HOSTILE[number] if number < len(HOSTILE) else f"something {colour}, the {number}th"
        rows.append({"image": name, "caption": caption})
    (folder / "copy.png").write_bytes((folder / "08.png").read_bytes())
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    rows += [{"image": "copy.png", "caption": "again"}, {"image": "broken.png", "caption": "a broken one"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    clipsieve.run(
        read=str(folder / "rows.jsonl"), model="demo", keep=["width >= 60", "blur >= 100", "clip_score >= -1"],
        dedup="exact", write="jsonl", scores={"height": {}}, vectors=True, out=folder / "run",
    )  # fmt: skip
    (folder / "06.png").unlink()
    return folder


@pytest.fixture
def run(made: Path) -> clipsieve.Run:
    """That run."""
    return clipsieve.Run.open(made / "run")


@pytest.fixture(scope="session")
def served(made: Path) -> Any:
    """What the server answers with, for all tests: it holds nothing that a test could leave behind but a job."""
    from clipsieve.web.server import answers_of

    return answers_of(clipsieve.Run.open(made / "run"))
