"""The report as one HTML file: whole in itself, no matter what captions, file names and labels hold."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import clipsieve
from clipsieve import Run
from clipsieve.api.report import BYTES, write_report
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.errors import OutputError
from clipsieve.report.examples import PICTURES
from clipsieve.report.page.tiles import Small, Tiles
from clipsieve.report.strips import Examples, Group, Tile
from clipsieve.report.values import Scores
from tests.fakes import image_bytes
from tests.pages import Page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EVIL = "<script>alert(1)</script>"
NAMES = ['"><img src=x onerror=alert(1)>.png', "plain.png", "{{ 7 * 7 }}{% raw %}.png", "broken\x1b[31m.png"]
CAPTIONS = [
    f"{EVIL} </style></title></svg>--> &amp; \"quoted\" 'x' \u202ertl\x00\x07",
    "javascript:alert(1) " + "long " * 20_000,
    "<svg onload=alert(1)><a href=http://example.org>x</a>",
    "",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three images and a broken one with hostile names, captions and labels."""
    folder = tmp_path_factory.mktemp("hostile") / "<b>run"
    folder.mkdir()
    rows = []
    for number, (name, caption) in enumerate(zip(NAMES, CAPTIONS, strict=True)):
        content = b"no image" if "broken" in name else image_bytes("red", seed=number, sharp=number != 1)
        (folder / name).write_bytes(content)
        rows.append({"image": name, "caption": caption})
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return clipsieve.run(
        read=str(folder / "rows.jsonl"),
        model="demo",
        keep=["blur >= 100", f'label in ("{EVIL}", "cat")'],
        scores={"label": {"labels": [EVIL, "cat", "</td></table>"]}},
        out=folder / "run",
    )


def page_of(run: Run, path: Path) -> Page:
    return Page(write_report(run, path).path.read_text(encoding="utf-8"))


def test_nothing_of_the_data_becomes_markup(hostile: Run, tmp_path: Path) -> None:
    page = page_of(hostile, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not {tag for tag, _ in page.tags} & {"script", "b", "link", "iframe", "form", "object", "base"}
    for tag, attributes in page.tags:
        assert not any(
            name.startswith("on") or name in ("style", "srcset", "action", "xlink:href") for name in attributes
        )
        assert (attributes.get("src") or "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        assert (attributes.get("href") or "#").startswith("#"), tag
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert (policy or "").startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert set(re.findall(r"url\([^)]*\)", text)) == {"url(#hatch)"}
    assert EVIL in page.text
    assert "{{ 7 * 7 }}{% raw %}.png" in page.text
    assert not any(char in text for char in "\x00\x07\x1b\u202e")
    assert len(text) < 200_000


def test_the_page_tells_all_that_the_issue_asks_for(hostile: Run, tmp_path: Path) -> None:
    text = page_of(hostile, tmp_path / "report.html").text
    for words in (
        "images read", "blur >= 100", "dropped by a rule on this score", "median", "Dropped, below 100",
        "Passed this rule, at or above 100", "Labels", "undecodable",
        "not an image of a known format", "The recipe", "versions", "fp32-",
    ):  # fmt: skip
        assert words in text, words
    assert "chosen at random" not in text  # the strip at the threshold shows all that were dropped


def rows_of(path: Path, section: str) -> list[list[str]]:
    """The cells of the tables in a section, without what is drawn."""
    html = path.read_text(encoding="utf-8").partition(f'<section id="{section}">')[2].partition("</section>")[0]
    rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL)
    ]
    return [
        [re.sub(r"<[^>]*>", "", cell).replace("−", "").strip() for cell in row if "<svg" not in cell] for row in rows
    ]


def test_the_numbers_of_the_page_are_those_of_the_ledger(hostile: Run, tmp_path: Path) -> None:
    path = write_report(hostile, tmp_path / "report.html").path
    assert [row[1:] for row in rows_of(path, "funnel")[1:]] == [
        ["", "4", "100.0%"], ["1", "3", "75.0%"], ["1", "2", "50.0%"], ["0", "2", "50.0%"],
    ]  # fmt: skip
    labels = hostile.ledger["label"].drop_null()
    found = rows_of(path, "labels")[1:]
    assert sum(int(row[1]) for row in found) == len(labels)
    assert sum(float(row[2].rstrip("%")) for row in found) == pytest.approx(100, abs=0.1)
    assert rows_of(path, "errors")[1][:2] == ["1", "undecodable"]


def test_equal_runs_give_equal_reports(hostile: Run, tmp_path: Path) -> None:
    one = write_report(hostile, tmp_path / "one.html")
    other = write_report(Run.open(hostile.path), tmp_path / "two.html")
    assert one.path.read_bytes() == other.path.read_bytes()
    assert (one.bytes, one.images) == (one.path.stat().st_size, 3)


@pytest.mark.parametrize("width", [1440, 390])
def test_a_browser_runs_nothing_requests_nothing_and_complains_of_nothing(
    hostile: Run, browser: Browser, tmp_path: Path, width: int
) -> None:
    path = write_report(hostile, tmp_path / "report.html").path
    seen: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("dialog", lambda dialog: seen.append(dialog.message))
    page.on("console", lambda message: seen.append(message.text))
    page.on("request", lambda request: seen.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(path.as_uri())
    assert seen == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelectorAll('.plot .kept path').length") > 0
    hatched = "getComputedStyle(document.querySelector('.plot .own path')).fill"
    assert "#hatch" in page.evaluate(hatched)
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    values = page.evaluate(
        "[...document.querySelectorAll('.tile details')].map(one => one.open = true)"
        " && [...document.querySelectorAll('.tile dd.one')].map(dd => dd.getBoundingClientRect().height)"
    )
    assert values
    assert max(values) < 20
    page.close()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder of two images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for colour in ("red", "blue"):
        (folder / f"{colour}.png").write_bytes(image_bytes(colour))
    return folder


def test_a_run_without_rules_and_scores(plain: Path, tmp_path: Path) -> None:
    run = clipsieve.run(read=str(plain), model="demo", out=tmp_path / "run")
    text = page_of(run, tmp_path / "report.html").text
    assert "The run has no rules: all that could be read was kept." in text
    assert "none was needed" in text
    assert "<h1>run</h1>" in (tmp_path / "report.html").read_text()


def test_a_run_without_rules_shows_images_along_each_score(plain: Path, tmp_path: Path) -> None:
    run = clipsieve.run(read=str(plain), model="demo", scores={"blur": {}, "width": {}}, out=tmp_path / "run")
    report = write_report(run, tmp_path / "report.html")
    text = Page(report.path.read_text()).text
    assert report.images == 2
    assert "blur From the lowest to the highest 2 images, all" in text
    assert text.count("From the lowest") == 1  # the width of an image is nothing to look at


def test_in_documents_the_page_says_which_text_it_shows(tmp_path: Path) -> None:
    parts: list[tuple[str, str | None, bytes | None]] = [
        ("text", "a red star", None), ("image", None, image_bytes("red")), ("text", "a blue ring", None),
    ]  # fmt: skip
    rows = [
        {"sample_id": "d", "position": place, "modality": kind, "text_content": words, "binary_content": data}
        for place, (kind, words, data) in enumerate(parts)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=INTERLEAVED_SCHEMA), tmp_path / "d.parquet")
    run = clipsieve.run(read=str(tmp_path / "d.parquet"), model="demo", keep="clip_score >= -1", out=tmp_path / "run")
    text = page_of(run, tmp_path / "report.html").text
    assert "clip_score is the highest over all texts of the document; shown is the text next to the image." in text


def test_a_run_that_dropped_all(plain: Path, tmp_path: Path) -> None:
    run = clipsieve.run(read=str(plain), model="demo", keep=["width >= 9999"], out=tmp_path / "run")
    text = page_of(run, tmp_path / "report.html").text
    assert "width >= 9999 dropped all of the images." in text
    assert "Passed this rule, at or above 9999 none" in text
    assert "2 images have exactly 64, 0 of them kept." in text
    assert "Dropped, below 9999 2 images, all" in text
    assert "kept dropped by a rule on this score" not in text  # the legend names what is drawn, and nothing is


def test_a_source_that_is_gone_leaves_a_report_without_pictures(plain: Path, tmp_path: Path) -> None:
    run = clipsieve.run(read=str(plain), model="demo", keep=["width >= 1"], out=tmp_path / "run")
    shutil.rmtree(plain)
    report = write_report(run)
    assert report.images == 0
    assert report.without_pictures is not None
    assert "give another" not in report.without_pictures
    text = Page(report.path.read_text()).text
    assert "No pictures: " in text
    assert "64" in text


def test_an_image_that_has_gone_since_is_told_in_its_place(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": "images/red.png"}\n{"image": "images/blue.png"}\n')
    run = clipsieve.run(read=str(tmp_path / "rows.jsonl"), model="demo", keep=["width >= 1"], out=tmp_path / "run")
    (plain / "red.png").unlink()
    report = write_report(run)
    assert report.images == 1
    assert "no picture" in (text := Page(report.path.read_text()).text)
    assert "missing: no such file" in text


def test_an_unfinished_run_is_reported_as_far_as_it_got(plain: Path, tmp_path: Path) -> None:
    for number in range(2):
        rows = "".join(f'{{"image": "images/{colour}.png"}}\n' for colour in ("red", "blue"))
        (tmp_path / f"{number}.jsonl").write_text(rows)
    read = {"path": str(tmp_path / "*.jsonl"), "shard_bytes": 1}
    run = clipsieve.run(read=read, model="demo", keep=["width >= 1"], out=tmp_path / "run")
    shards = len(run.shards())
    assert shards > 1
    (run.path / "ledger" / f"{shards - 1:05d}.parquet").unlink()
    (run.path / "summary.json").unlink()
    text = page_of(Run.open(run.path), tmp_path / "report.html").text
    assert f"Unfinished: {shards - 1} of {shards} shards are done" in text
    assert "No pictures: " in text


def test_pictures_stay_below_nine_megabytes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)  # what JPEG can do least for
    Image.fromarray(noise).save(tmp_path / "images" / "noise.png")
    run = clipsieve.run(read=str(tmp_path / "images"), model="demo", keep=["width >= 1"], out=tmp_path / "run")
    (source,) = set(re.findall('base64,([^"]*)"', write_report(run).path.read_text()))
    assert len(source) * 3 / 4 <= BYTES

    tile = Tile(row=0, images=(0,))
    group = Group(images=1, tiles=[tile])
    pictures = {0: Small(jpeg=b"x", caption=None, error=None)}
    tiles = Tiles(Scores(run.ledger), Examples(rules=[], scores=[], groups=[group], labels=[]), pictures)
    assert sum(tiles.view(tile).sources != [None] for _ in range(1000)) == PICTURES
    assert PICTURES * BYTES * 4 / 3 < 9e6


@pytest.mark.parametrize("name", ["recipe.yaml", "report", "folder.html"])
def test_only_an_html_file_is_written_over(plain: Path, tmp_path: Path, name: str) -> None:
    run = clipsieve.run(read=str(plain), model="demo", out=tmp_path / "run")
    (run.path / "folder.html").mkdir()
    before = (run.path / "recipe.yaml").read_bytes()
    with pytest.raises(OutputError, match=r"HTML|folder"):
        write_report(run, run.path / name)
    assert (run.path / "recipe.yaml").read_bytes() == before
