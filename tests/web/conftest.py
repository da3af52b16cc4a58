"""A small run to look at: colours, a few of them odd, with captions that would like to be markup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import clipsieve
from tests.fakes import image_bytes

pytest.importorskip("starlette")

from tests.web.pages import Open, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> clipsieve.Run:
    """A run of 75 samples of two tiny images: of one an image is broken, of three one is not sharp."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for number in range(150):
        sharp = number not in (4, 14, 24)
        picture = b"no image" if number == 7 else image_bytes(size=(16, 16), sharp=sharp, seed=number)
        (folder / f"{number:03d}.png").write_bytes(picture)
    rows = [{"images": [f"{n:03d}.png", f"{n + 1:03d}.png"]} for n in range(0, 150, 2)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keep = ["blur >= 100", "any(pair_similarity) >= -1"]
    return clipsieve.run(
        read=str(folder / "rows.jsonl"), model="demo", keep=keep, on_error="drop-sample", out=folder / "run"
    )


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> clipsieve.Run:
    """A run of 12 images with scores that were added to it."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    for number in range(12):
        path = folder / "images" / f"{number:02d}.png"
        path.write_bytes(image_bytes(("red", "blue")[number % 2], seed=number))
    done = clipsieve.run(
        read=str(folder / "images"), model="demo", keep=["blur >= 1"], vectors=True, out=folder / "run"
    )
    clipsieve.label(done, labels=["red", "blue"], templates=["{}", "something {}"])
    return clipsieve.add_score(done, "nearest_similarity")


@pytest.fixture(scope="session")
def address(served: Any) -> Iterator[str]:
    """Where the run is served."""
    with serving(served) as address:
        yield address


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Open]:
    """Opens a page, that of the run if none is said, in a context of its own; afterwards no script has failed and
    nothing foreign was asked for."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def opened(
        hash: str = "", width: int = 1440, height: int = 960, context: Any = None, at: str = address, **options: Any
    ) -> Page:
        if context is None:
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            context.set_default_timeout(10_000)
            contexts.append(context)
        page: Page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
        page.on("console", lambda line: wrong.append(line.text) if "Security Policy" in line.text else None)
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((at, "data:", "blob:")) else wrong.append(asked.url),
        )
        page.goto(at + hash)
        page.wait_for_selector(".tile")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
