"""Every row of the tables in ``docs/bad-input.md``, tried: the input is made here, what becomes of it is read there.

A case is named in one of the tables below (``IMAGES``, ``URLS``, ``CAPTIONS``, ``SOURCES``, ``REQUESTS``,
``SEARCHES``, ``EXTRAS``) or, where it takes more than an input, a test named after it. ``test_every_row_is_tried``
keeps documentation and tests together.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import gzip
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipsieve import Index, api, cli
from clipsieve.core import http
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.core.lock import locked
from clipsieve.core.storage import place
from clipsieve.encoders.hub import DEMO
from clipsieve.engines import bytestore
from clipsieve.index.lancedb import LanceStore
from clipsieve.index.places import open_store
from clipsieve.readers import open_source
from clipsieve.recipe import Recipe
from clipsieve.runfolder import RunFolder
from tests.core.test_decode import of_scans, png_of_size
from tests.engines.conftest import curate_table
from tests.fakes import image_bytes
from tests.imageserver import ImageServer
from tests.storage.conftest import bucket_fixture, put, server_fixture, store_fixture, write_source  # noqa: F401
from tests.storage.server import Fault, Server, denied, expired

ROOT = Path(__file__).parents[1]
ODD = ROOT.parent / "shared" / "data" / "photos" / "odd"
RED = image_bytes("red")
NOBODY = 65534
COMMAND = [sys.executable, "-c", "from clipsieve.cli import main; main()"]


@dataclass(frozen=True)
class Row:
    """A row of the documentation: what becomes of a case, and the words for it."""

    case: str
    outcome: str
    words: str

    def says(self, text: str | None) -> bool:
        """Whether ``text`` is the documented one; ``…`` there stands for anything."""
        pattern = ".*".join(re.escape(part) for part in self.words.split("…"))
        return re.fullmatch(pattern, text or "") is not None


def _documented() -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {}
    for line in (ROOT / "docs" / "bad-input.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            rows = tables.setdefault(line[3:], [])
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[0] != "case" and set(cells[0]) != {"-"}:
            rows.append(Row(cells[0], cells[2], cells[3].strip("`")))
    return tables


DOCUMENTED = _documented()
ROWS = {row.case: row for rows in DOCUMENTED.values() for row in rows}


def rows_of(cases: dict[str, Any]) -> list[Any]:
    """The documented rows of ``cases``, as parameters of a test."""
    return [pytest.param(ROWS[case], id=case) for case in cases if case in ROWS]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a good image, in which the test works."""
    (tmp_path / "good.png").write_bytes(RED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clipsieve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a command in this process; gives its exit code and the last line on standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clipsieve", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr().err
        assert "Traceback" not in printed
        return int(end.value.code or 0), printed.splitlines()[-1] if printed else ""

    return run


Clipsieve = Callable[..., tuple[int, str]]


def ends_as_documented(case: str, ended: tuple[int, str]) -> bool:
    """Whether a command ended with the documented code and, after ``error:``, the documented line."""
    row, (code, line) = ROWS[case], ended
    assert f"exit {code}" == row.outcome, line
    assert row.says(line.removeprefix("error: ")), f"{line!r} is not {row.words!r}"
    return True


# Images: a function that makes the image in a folder and gives the cell that leads to it.


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photo(mode: str = "RGB") -> Image.Image:
    return Image.open(io.BytesIO(RED)).convert(mode)


def stored(name: str, data: bytes) -> Callable[[Path], str]:
    def store(folder: Path) -> str:
        (folder / name).write_bytes(data)
        return name

    return store


def cell(value: Any) -> Callable[[Path], Any]:
    return lambda folder: value


def made(name: str, make: Callable[[Path], Any]) -> Callable[[Path], str]:
    def build(folder: Path) -> str:
        make(folder / name)
        return name

    return build


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


IMAGES: dict[str, Callable[[Path], Any]] = {
    "truncated-jpeg": stored("x.jpg", encoded(photo(), "JPEG")[:-200]),
    "truncated-png": stored("x.png", RED[:-500]),
    "empty-file": stored("x.png", b""),
    "not-an-image": stored("x.jpg", b"<html>404 Not Found</html>"),
    "missing-file": cell("gone.png"),
    "folder-as-image": made("photos", Path.mkdir),
    "pipe-as-image": made("pipe.png", os.mkfifo),
    "device-as-image": cell("/dev/zero"),
    "pipe-as-archive": lambda folder: "zip://x.png::" + made(str(folder / "pipe.zip"), os.mkfifo)(folder),
    "bomb": stored("x.png", png_of_size(20_000, 20_000)),
    "many-scans": stored("x.jpg", of_scans(2000)),
    "float-tiff": stored("x.tif", encoded(Image.new("F", (64, 48), 0.5), "TIFF")),
    "one-pixel": stored("x.png", encoded(Image.new("RGB", (1, 1)), "PNG")),
    "thin": stored("x.png", encoded(Image.new("RGB", (1, 5000)), "PNG")),
    "cmyk": stored("x.jpg", encoded(photo("CMYK"), "JPEG")),
    "palette-transparent": stored("x.png", encoded(photo("P"), "PNG", transparency=0)),
    "sixteen-bit": stored("x.png", encoded(Image.new("I;16", (64, 48), 0x8000), "PNG")),
    "one-bit": stored("x.png", encoded(photo("1"), "PNG")),
    "lab": stored("x.tif", encoded(Image.new("LAB", (64, 48), (136, 208, 195)), "TIFF")),
    "animated-gif": stored("x.gif", encoded(photo("P"), "GIF", save_all=True, append_images=[photo("L")])),
    "exif-rotated": stored("x.jpg", encoded(photo(), "JPEG", exif=turned())),
    "broken-exif": stored("x.jpg", encoded(photo(), "JPEG", exif=b"Exif\0\0nonsense")),
    "mpo": stored("x.mpo", encoded(photo(), "MPO", save_all=True, append_images=[photo()])),
    "webp": stored("x.webp", encoded(photo(), "WEBP")),
    "wrong-extension": stored("x.png", encoded(photo(), "JPEG")),
    "null-cell": cell(None),
    "blank-cell": cell("  "),
    "broken-data-uri": cell("data:image/png;base64,@@@"),
    "plain-data-uri": cell("data:image/png,%89PNG"),
    "empty-data-uri": cell("data:image/png;base64,"),
    "broken-struct": cell('{"bytes": 5}'),
    "http-url": cell("http://127.0.0.1:9/x.png"),
    "url-without-host": cell("http://"),
    "chained-url": cell("zip://x.png::HTTPS://example.org/x.zip"),
    "password-in-store": cell("s3://KEY:s3cret@bucket/x.png"),
    "unknown-scheme": cell("foo://bar/x.png"),
    "other-protocol": cell("zip://x.png::webhdfs://127.0.0.1:9/x.zip"),
    "absolute-path": lambda folder: str(folder / "good.png"),
    "file-url": lambda folder: (folder / "good.png").as_uri(),
    "dotdot-path": lambda folder: f"../{folder.name}/good.png",
    "glob-characters": stored("a[1]*.png", RED),
    "link": made("link.png", lambda path: path.symlink_to("good.png")),
    "link-loop": made("loop.png", lambda path: path.symlink_to("loop.png")),
    "long-name": cell("x" * 5000),
    "zero-byte-name": cell("x\0.png"),
}


def json_lines(path: Path, *rows: Any) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def ledger_of(source: str | Path, **options: Any) -> list[dict[str, Any]]:
    """Curates a source by rules that every image can pass, and gives the ledger's rows."""
    keep = ["width >= 1", "blur >= 0", "qr_code <= 1"]
    run = api.run(read=options.pop("read", str(source)), keep=keep, **options)
    rows: list[dict[str, Any]] = run.ledger.to_pylist()
    return rows


@pytest.mark.parametrize("row", rows_of(IMAGES))
def test_an_image(row: Row, folder: Path) -> None:
    image = IMAGES[row.case](folder)
    source = json_lines(folder / "rows.jsonl", *[{"image": image} for image in ("good.png", image, "good.png")])

    before, found, after = ledger_of(source)

    assert (before["verdict"], found["verdict"], after["verdict"]) == ("kept", row.outcome, "kept")
    assert row.says(found["error"] or f"{found['width']:.0f} x {found['height']:.0f}"), found


def test_a_bomb_is_refused_before_memory_grows(folder: Path) -> None:
    assert "bomb" in ROWS
    (folder / "bomb.png").write_bytes(png_of_size(20_000, 20_000))
    ledger_of(json_lines(folder / "warm.jsonl", {"image": "good.png"}), out="warm")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    (row,) = ledger_of(json_lines(folder / "rows.jsonl", {"image": "bomb.png"}))

    assert row["verdict"] == "failed"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; its pixels are 1.2 GB


# Images by URL: the path on a server that misbehaves.

URLS = {
    "url-good": "image/x.png",
    "url-again": "again/x?code=503",
    "url-redirect": "redirect/?to=/image/x.png",
    "url-mislabelled": "image/x?content_type=application/octet-stream",
    "url-gone": "status/?code=404",
    "url-busy": "status/?code=429",
    "url-hangs": "hang/",
    "url-slow": "slow/",
    "url-reset": "reset/",
    "url-cut": "cut/",
    "url-loop": "loop/",
    "url-to-file": "redirect/?to=file:///etc/passwd",
    "url-page": "image/?content_type=text/html",
    "url-no-image": "large/?size=2000",
    "url-empty": "large/?size=0",
    "url-large": "large/?size=200000",
    "url-endless": "large/?size=100000000&told=no",
    "url-bomb": "bomb/",
    "url-opted-out": "image/?x_robots_tag=noai",
    "url-not-http": "nonsense/",
}


@pytest.mark.parametrize("row", rows_of(URLS))
def test_an_image_by_url(row: Row, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.01)
    fetch = {"allow_private": True, "timeout": 0.5, "retries": 1, "max_bytes": 100_000}
    with ImageServer() as server:
        images = [server(path) for path in ("image/before.png", URLS[row.case], "image/after.png")]
        source = json_lines(folder / "rows.jsonl", *[{"image": image} for image in images])
        before, found, after = ledger_of(source, fetch=fetch)

    assert (before["verdict"], found["verdict"], after["verdict"]) == ("kept", row.outcome, "kept")
    assert row.says(found["error"] or f"{found['width']:.0f} x {found['height']:.0f}"), found


# Captions: the cell of the column.

ABSENT = object()
CAPTIONS: dict[str, Any] = {
    "empty-caption": "",
    "null-caption": None,
    "nan-caption": float("nan"),
    "no-caption": ABSENT,
    "white-caption": " \t\n",
    "long-caption": "red " + "word " * 299,
    "emoji-caption": "🚗 red 🟥",
    "other-language": "ein red 車",
    "number-caption": 7,
}


@pytest.mark.parametrize("row", rows_of(CAPTIONS))
def test_a_caption(row: Row, folder: Path) -> None:
    captions = ("a red thing", CAPTIONS[row.case], "red again")
    lines = [{"image": "good.png"} | ({} if text is ABSENT else {"caption": text}) for text in captions]
    reader = open_source(str(json_lines(folder / "rows.jsonl", *lines)), root=str(folder))
    (shard,) = reader.shards()
    rows = reader.read(shard)

    ledger = curate_table(rows.table, reader.layout, "clip_score >= 0.5", out=folder / "run").to_pylist()

    assert rows.errors == {}
    assert [found["verdict"] for found in ledger] == ["kept", row.outcome, "kept"]
    assert row.says(ledger[1]["reason"])


# Rows and files: a function that makes the source in a folder and gives what to read, and how.


def table(**columns: Any) -> Callable[[Path], str]:
    return made("rows.parquet", lambda path: pq.write_table(pa.table(columns), path))


def lines(*rows: Any) -> Callable[[Path], str]:
    return made("rows.jsonl", lambda path: json_lines(path, *rows))


def tar(*members: tuple[str, bytes], keep: int | None = None) -> Callable[[Path], str]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stored("rows.tar", file.getvalue()[:keep])


def documents(*source_refs: str) -> Callable[[Path], str]:
    """A document of one image for each ``source_ref``."""
    rows = [
        {"sample_id": str(i), "position": 0, "modality": "image", "source_ref": reference}
        for i, reference in enumerate(source_refs)
    ]
    return made("rows.parquet", lambda path: pq.write_table(pa.Table.from_pylist(rows, INTERLEAVED_SCHEMA), path))


def document_members(bomb: bool) -> list[tuple[str, bytes]]:
    """The ends of names and the contents of a document of one image in a tar."""
    deflating = zlib.compressobj(9)
    stored_rows = b"".join(deflating.compress(bytes(2**20)) for _ in range(200)) + deflating.flush() if bomb else b""
    field = {"clipsieve": {"rows": base64.b64encode(stored_rows).decode()}} if bomb else {}
    document = {"texts": [None], "images": ["png"], **field}
    return [("json", json.dumps(document).encode()), ("png", RED)]


def image_folder(*others: Callable[[Path], Any]) -> Callable[[Path], str]:
    """A folder of images ``a.png`` and ``c.png``, and what ``others`` make in it."""

    def build(folder: Path) -> str:
        photos = folder / "photos"
        photos.mkdir()
        for other in (stored("a.png", RED), stored("c.png", RED), *others):
            other(photos)
        return "photos"

    return build


def some_files(folder: Path) -> str:
    for name, content in (("a", '{"image": "../good.png"}'), ("b", ""), ("c", '{"image": "../good.png"}')):
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / f"{name}.jsonl").write_text(content)
    return "data"


GOOD = {"image": "good.png"}
GOOD_REF = json.dumps({"path": "good.png"})
SOURCES: dict[str, Callable[[Path], Any]] = {
    "malformed-json-line": lines(GOOD, b'{"image": "good', GOOD),
    "json-array-line": lines(GOOD, ["good.png"], GOOD),
    "json-scalar-line": lines(GOOD, 7, GOOD),
    "odd-list-cell": lines({"image": ["good.png"]}, {"image": False}, {"image": ["good.png"]}),
    "json-not-utf8": lines(GOOD, b'{"image": "\xff"}', GOOD),
    "csv-short-row": stored("rows.csv", b"id,image\na,good.png\nb\nc,good.png\n"),
    "csv-long-row": stored("rows.csv", b"id,image\na,good.png\nb,good.png,x\nc,good.png\n"),
    "csv-open-quote": stored("rows.csv", b'id,image\na,good.png\nb,"good.png\nc,good.png\n'),
    "csv-not-utf8": stored("rows.csv", b"id,image\na,good.png\n\xff,good.png\nc,good.png\n"),
    "duplicate-ids": lines(*[{"id": "same", "image": "good.png"}] * 3),
    "number-column": lambda folder: {"path": table(image=[1, 2])(folder), "columns": {"image": "image"}},
    "one-empty-file": some_files,
    "cut-tar": tar(("a.png", RED), ("b.png", RED), keep=len(RED) + 2500),
    "climbing-member": tar(("a.png", RED), ("../../x.png", RED), ("c.png", RED)),
    "tar-without-image": tar(("a.png", RED), ("b.txt", b"no image"), ("c.png", RED)),
    "tar-broken-json": tar(("a.png", RED), ("b.png", RED), ("b.json", b"{"), ("c.png", RED)),
    "stored-rows-bomb": tar(*[(f"{key}.{end}", data) for key in "abc" for end, data in document_members(key == "b")]),
    "bad-source-ref": documents(GOOD_REF, "{", GOOD_REF),
    "bad-offset": documents(GOOD_REF, json.dumps({"path": "good.png", "byte_offset": -5}), GOOD_REF),
    "bad-sidecar": image_folder(stored("b.png", RED), stored("b.txt", b"\xff")),
    "dangling-link": image_folder(made("b.png", lambda path: path.symlink_to("nowhere.png"))),
    "looping-folder": image_folder(made("again", lambda path: path.symlink_to("."))),
}


@pytest.mark.parametrize("row", rows_of(SOURCES))
@pytest.mark.parametrize("write", [None, "webdataset"], ids=["", "written"])
def test_a_source(row: Row, write: str | None, folder: Path) -> None:
    ledger = ledger_of("", read=SOURCES[row.case](folder), write=write)

    assert [found["verdict"] for found in ledger] == row.outcome.split(", ")
    assert all(row.says(found["error"]) for found in ledger if found["verdict"] == "failed")
    if write:
        names = tar_names(Path("clipsieve-run/output"))
        assert len(names) == len(set(names))
        assert sum(name.endswith(".png") for name in names) == row.outcome.count("kept")


def tar_names(output: Path) -> list[str]:
    found = []
    for path in sorted(output.glob("*.tar")) if output.exists() else ():
        with tarfile.open(path) as archive:
            found += archive.getnames()
    return found


def test_a_climbing_member_is_never_a_path(folder: Path) -> None:
    read = SOURCES["climbing-member"](folder)
    before = set(folder.parent.parent.iterdir())

    ledger = ledger_of("", read=read, write="webdataset")

    assert [found["sample_id"] for found in ledger] == ["a", "../../x", "c"]
    assert set(folder.parent.parent.iterdir()) == before


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.skipif(not ODD.is_dir(), reason="the photographs are not part of the repository")
def test_odd_photographs(folder: Path) -> None:
    labels = {Path(label["file"]).name: label for label in json.loads((ODD / "labels.json").read_text())}

    ledger = {Path(row["reference"]).name: row for row in ledger_of(ODD)}

    assert ledger.keys() == labels.keys()
    assert ROWS["odd-photographs"].outcome == "kept or failed"
    for name, row in ledger.items():
        label = labels[name]
        assert row["verdict"] == ("kept" if label["decodes"] else "failed"), name
        if label["decodes"]:
            upright = label["size"] if (label["exif_orientation"] or 1) < 5 else label["size"][::-1]
            assert [row["width"], row["height"]] == upright, name
        else:
            assert ROWS["odd-photographs"].says(row["error"])


# Requests and sources: a function that makes what the command needs and gives its arguments.

Request = Callable[[Path], Sequence[str]]


def read(source: Callable[[Path], str], *flags: str) -> Request:
    return lambda folder: ("run", "--read", source(folder), *flags)


def recipe(content: str) -> Request:
    return lambda folder: ("run", stored("recipe.yaml", content.encode())(folder))


def of_documents(options: str) -> Request:
    columns = {"sample_id": ["a"], "position": [0], "modality": ["text"], "title": ["x"]}
    return lambda folder: recipe(f"read: {{path: {table(**columns)(folder)}, {options}}}\n")(folder)


def write(value: str) -> Request:
    return lambda folder: recipe(f"read: {ONE(folder)}\nwrite: {value}\n")(folder)


def dedup(value: str) -> Request:
    return lambda folder: recipe(f"read: {ONE(folder)}\ndedup: {value}\n")(folder)


def label(*flags: str) -> Request:
    return lambda folder: ("label", ONE(folder), *flags)


def garbage(name: str) -> Callable[[Path], str]:
    return stored(name, np.random.default_rng(1).integers(128, 256, 5000, dtype=np.uint8).tobytes())


def damaged(folder: Path) -> str:
    name = table(image=pa.array([bytes([i]) * 500 for i in range(90)]))(folder)
    data = bytearray((folder / name).read_bytes())
    data[4:12] = b"\xff" * 8
    (folder / name).write_bytes(data)
    return name


def cut(source: Callable[[Path], str], size: int) -> Callable[[Path], str]:
    def build(folder: Path) -> str:
        name = source(folder)
        os.truncate(folder / name, size)
        return name

    return build


def two_formats(folder: Path) -> str:
    (folder / "data").mkdir()
    (folder / "data" / "a.jsonl").write_text("{}")
    (folder / "data" / "b.csv").write_text("image\n")
    return "data"


ONE = lines(GOOD)
REQUESTS: dict[str, Request] = {
    "no-such-file": read(cell("gone.jsonl")),
    "no-matching-files": read(cell("gone/*.parquet")),
    "empty-folder": read(made("empty", Path.mkdir)),
    "folder-as-file": read(made("a.jsonl", Path.mkdir), "--format", "jsonl"),
    "pipe-as-source": read(made("rows.jsonl", os.mkfifo)),
    "image-as-source": read(cell("good.png")),
    "unknown-extension": read(stored("rows.txt", b"good.png")),
    "several-formats": read(two_formats),
    "garbage-jsonl": read(garbage("rows.jsonl")),
    "garbage-csv": read(garbage("rows.csv")),
    "zeros-csv": read(stored("rows.csv", bytes(5000))),
    "garbage-parquet": read(garbage("rows.parquet")),
    "garbage-tar": read(garbage("rows.tar")),
    "truncated-parquet": read(cut(table(image=["good.png"] * 50), 300)),
    "damaged-parquet": read(damaged),
    "truncated-gzip": read(stored("rows.jsonl.gz", gzip.compress(b'{"image": "good.png"}\n' * 99)[:-9])),
    "empty-jsonl": read(stored("rows.jsonl", b"")),
    "empty-csv": read(stored("rows.csv", b"")),
    "header-only": read(stored("rows.csv", b"id,image\n")),
    "empty-parquet": read(table(image=pa.array([], pa.string()))),
    "empty-tar": read(tar()),
    "json-array": read(stored("rows.json", json.dumps([GOOD, GOOD]).encode())),
    "json-scalars": read(lines(1, 2, 3)),
    "missing-column": read(lines({"id": 1, "image": "good.png", "caption": "red"}), "--text", "captoin"),
    "no-image-column": read(lines({"photo": "good.png", "words": "red"})),
    "numbers-as-images": read(lines({"image": 1}, {"image": 2})),
    "equal-columns": read(stored("rows.csv", b"image,image\na,b\n")),
    "scattered-document": read(table(sample_id=["a", "b", "a"], position=[0, 0, 1], modality=["text"] * 3)),
    "no-recipe": lambda folder: ("run", "gone.yaml"),
    "recipe-not-yaml": recipe("read: [rows.jsonl"),
    "recipe-not-text": lambda folder: ("run", "good.png"),
    "recipe-of-nothing": recipe("# to be written\n"),
    "recipe-without-read": recipe("keep: blur >= 100\n"),
    "unknown-key": recipe("read: rows.jsonl\nkep: blur >= 100\n"),
    "key-twice": recipe("keep: blur >= 100\nread: rows.jsonl\nkeep: width >= 256\n"),
    "wrong-type": recipe("read: rows.jsonl\nlimit: many\n"),
    "unknown-choice": recipe("read: rows.jsonl\non_error: explode\n"),
    "code-in-yaml": recipe("read: !!python/object/apply:os.system ['touch ran']\n"),
    "unknown-score": read(ONE, "--keep", "blurr >= 100"),
    "bad-rule": read(ONE, "--keep", "blur => 100"),
    "text-for-number": read(ONE, "--keep", 'blur >= "high"'),
    "impossible-rule": read(ONE, "--keep", "10 <= blur <= 5"),
    "unknown-flag": read(ONE, "--kep", "blur >= 100"),
    "write-without-format": read(ONE, "--write", "out/"),
    "fields-of-captions": lambda folder: recipe(f"read: {{path: {ONE(folder)}, fields: [n]}}\n")(folder),
    "unknown-field": of_documents("fields: [urls]"),
    "unknown-type": of_documents("types: {n: flaot}"),
    "unfit-type": of_documents("types: {title: int64}"),
    "one-tar": read(ONE, "--write", "webdataset:kept.tar"),
    "prefix-of-one-file": write("{jsonl: kept.jsonl, prefix: x-}"),
    "climbing-prefix": write("{jsonl: kept/, prefix: ../x-}"),
    "prefix-like-a-shard": write("{jsonl: kept/, prefix: 20240101-}"),
    "embedded-captions": write("{parquet: kept/, embed: true}"),
    "scores-without-write": read(ONE, "--scores"),
    "unfit-format": read(documents(GOOD_REF), "--write", "csv"),
    "no-labels": label(),
    "one-label": label("--labels", "cat"),
    "equal-labels": label("--labels", "cat,dog,CAT"),
    "label-called-none": label("--labels", "cat,none of these"),
    "long-label": label("--labels", f"cat,{'very ' * 99}long", "--model", "demo"),
    "no-labels-file": label("--labels-file", "gone.txt"),
    "labels-file-not-text": label("--labels-file", "good.png"),
    "empty-labels-file": lambda folder: label("--labels-file", stored("labels.txt", b"\n \n")(folder))(folder),
    "template-without-place": label("--labels", "cat,dog", "--template", "a photo"),
    "improbable-minimum": label("--labels", "cat,dog", "--min-probability", "60"),
    "sheet-of-no-picture": label("--labels", "cat,dog", "--sheet", "sheet.txt"),
    "rule-without-labels": read(ONE, "--keep", "label in (cat, dog)"),
    "rule-of-no-label": lambda folder: recipe(
        f"read: {ONE(folder)}\nkeep: label in (cat, dgo)\nscores: {{label: {{labels: [cat, dog]}}}}\n"
    )(folder),
    "no-cosine": read(ONE, "--dedup", "90"),
    "half-a-bit": dedup("{method: perceptual, threshold: 2.5}"),
    "exact-threshold": dedup("{method: exact, threshold: 1}"),
    "unknown-method": read(ONE, "--dedup", "semantik"),
    "unknown-preference": dedup("{keep: blurr}"),
    "preference-without-order": dedup("{keep: label}"),
    "no-model": lambda folder: (*read(ONE, "--vectors", "--model")(folder), str(folder / "gone")),
}


@pytest.mark.parametrize("row", rows_of(REQUESTS))
def test_a_request(row: Row, folder: Path, clipsieve: Clipsieve) -> None:
    request = REQUESTS[row.case](folder)
    before = set(folder.iterdir())

    assert ends_as_documented(row.case, clipsieve(*request))
    # Nothing has run: at most the run folder is there, without a part of the ledger.
    assert set(folder.iterdir()) - before <= {folder / "clipsieve-run"}
    assert not list(folder.glob("clipsieve-run/*/*"))


# Run folders and outputs: where one command meets what another left.

RUN = ("run", "--read", "rows.jsonl", "--out", "run", "-q")
WRITE = (*RUN, "--keep", "blur >= 100", "--write", "webdataset")


@pytest.fixture
def finished(folder: Path, clipsieve: Clipsieve) -> Path:
    """A finished run of one row in ``run``."""
    ONE(folder)
    assert clipsieve(*RUN) == (0, "")
    return folder / "run"


@pytest.fixture
def taken(folder: Path) -> Path:
    """A folder that holds something else."""
    ONE(folder)
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.txt").write_text("chapter 1")
    return folder / "taken"


def test_output_not_empty(taken: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("output-not-empty", clipsieve(*RUN, "--write", "jsonl:taken"))
    assert [path.name for path in taken.iterdir()] == ["thesis.txt"]


def test_output_is_file(folder: Path, clipsieve: Clipsieve) -> None:
    ONE(folder)
    assert ends_as_documented("output-is-file", clipsieve(*RUN, "--write", "jsonl:good.png"))
    assert (folder / "good.png").read_bytes() == RED


def test_output_file_taken(folder: Path, clipsieve: Clipsieve) -> None:
    ONE(folder)
    (folder / "good.csv").write_text("mine")
    assert ends_as_documented("output-file-taken", clipsieve(*RUN, "--write", "csv:good.csv"))
    assert (folder / "good.csv").read_text() == "mine"


def test_output_below_file(folder: Path, clipsieve: Clipsieve) -> None:
    ONE(folder)
    assert ends_as_documented("output-below-file", clipsieve(*RUN, "--write", "jsonl:good.png/x"))


def test_run_is_file(folder: Path, clipsieve: Clipsieve) -> None:
    ONE(folder)
    assert ends_as_documented("run-is-file", clipsieve("run", "--read", "rows.jsonl", "--out", "good.png"))


def test_run_is_foreign(taken: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("run-is-foreign", clipsieve("run", "--read", "rows.jsonl", "--out", "taken"))
    assert [path.name for path in taken.iterdir()] == ["thesis.txt"]


def test_run_of_another_recipe(finished: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("run-of-another-recipe", clipsieve(*RUN, "--keep", "blur >= 100"))
    assert clipsieve(*RUN) == (0, "")


def test_run_in_use(finished: Path, clipsieve: Clipsieve) -> None:
    with open(finished / ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ends_as_documented("run-in-use", clipsieve(*RUN))
    assert clipsieve(*RUN) == (0, "")


def test_who_is_locked_out_leaves_the_output_alone(folder: Path, clipsieve: Clipsieve) -> None:
    ONE(folder)
    assert clipsieve(*WRITE) == (0, "")
    half_written = folder / "run" / "output" / ".partial-00001.tar"
    half_written.write_bytes(b"half")
    with open(folder / "run" / ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ends_as_documented("run-in-use", clipsieve(*WRITE))
        assert half_written.exists()


def test_source_changed(finished: Path, clipsieve: Clipsieve) -> None:
    with open("rows.jsonl", "a") as file:
        file.write('{"image": "new.png"}\n')
    assert ends_as_documented("source-changed", clipsieve(*RUN))


@pytest.mark.parametrize("content", ["[[", "7", ""])
def test_damaged_recipe(content: str, finished: Path, clipsieve: Clipsieve) -> None:
    (finished / "recipe.yaml").write_text(content)
    assert ends_as_documented("damaged-recipe", clipsieve(*RUN))


@pytest.mark.parametrize("content", ["{", "[]", '{"files": 5}', ""])
def test_damaged_shard_list(content: str, finished: Path, clipsieve: Clipsieve) -> None:
    (finished / "shards.json").write_text(content)
    assert ends_as_documented("damaged-shard-list", clipsieve(*RUN))


def test_damaged_ledger(finished: Path, clipsieve: Clipsieve) -> None:
    part = finished / "ledger" / "00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:100])
    for command in (RUN, ("show", "run"), ("show", "run", "--json")):
        assert ends_as_documented("damaged-ledger", clipsieve(*command))
    part.unlink()
    assert clipsieve(*RUN) == (0, "")
    assert part.read_bytes() == whole


def test_show_nothing(taken: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("show-nothing", clipsieve("show", "taken"))


def test_show_unfinished(folder: Path, clipsieve: Clipsieve) -> None:
    RunFolder.open(folder / "run", {"read": "rows.jsonl"}, {"layout": "captions"}).__exit__()
    assert ends_as_documented("show-unfinished", clipsieve("show", "run"))


def test_stop_on_error(folder: Path, clipsieve: Clipsieve) -> None:
    json_lines(folder / "rows.jsonl", GOOD, {"image": "gone.png"}, GOOD)
    assert ends_as_documented("stop-on-error", clipsieve(*RUN, "--on-error", "stop"))
    (folder / "gone.png").write_bytes(RED)  # mended, the same command goes on
    assert clipsieve(*RUN, "--on-error", "stop") == (0, "")
    assert api.Run.open("run").counts.images.kept == 3


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(run: Path) -> dict[str, bytes]:
    """What a run has left, but for what says when it ran."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in (".lock", "summary.json")
    }


def undisturbed(clipsieve: Clipsieve, *command: str) -> dict[str, bytes]:
    """What ``command`` leaves in a run folder of its own that nothing has disturbed."""
    assert clipsieve(*command, "--out", "whole") == (0, "")
    return contents(Path("whole"))


def test_file_size_limit(folder: Path, clipsieve: Clipsieve) -> None:
    json_lines(folder / "rows.jsonl", *[GOOD] * 20)
    with files_up_to(20_000):
        assert ends_as_documented("file-size-limit", clipsieve(*WRITE))
    assert not list(folder.glob("run/**/*.tar"))
    assert clipsieve(*WRITE) == (0, "")
    assert contents(folder / "run") == undisturbed(clipsieve, *WRITE)


def test_full_disk_for_bytes(folder: Path, clipsieve: Clipsieve, monkeypatch: pytest.MonkeyPatch) -> None:
    json_lines(folder / "rows.jsonl", *[GOOD] * 20)
    monkeypatch.setattr(bytestore, "IN_MEMORY", 1000)
    with files_up_to(20_000):
        assert ends_as_documented("full-disk-for-bytes", clipsieve(*WRITE))
    assert clipsieve(*WRITE) == (0, "")
    assert contents(folder / "run") == undisturbed(clipsieve, *WRITE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_full_disk(small_disk: Path, folder: Path, clipsieve: Clipsieve) -> None:
    json_lines(folder / "rows.jsonl", *[GOOD] * 20)
    command = ("run", "--read", "rows.jsonl", "--write", "webdataset", "-q")
    on_disk = (*command, "--out", str(small_disk / "run"))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(80_000))
    assert ends_as_documented("full-disk", clipsieve(*on_disk))
    assert not list(small_disk.glob("run/**/.partial-*"))
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert clipsieve(*on_disk) == (0, "")
    assert contents(small_disk / "run") == undisturbed(clipsieve, *command)


def test_store_package_missing(clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-package-missing", clipsieve("run", "--read", ".", "--out", "gs://bucket/run"))


def test_store_unknown(clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-unknown", clipsieve("run", "--read", ".", "--out", "s5://bucket/run"))


def test_store_no_bucket(clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-no-bucket", clipsieve("run", "--read", ".", "--out", "s3:///"))


def test_store_one_slash(clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-one-slash", clipsieve("run", "--read", ".", "--out", "s3:/bucket/run"))


def test_store_of_the_process(clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-of-the-process", clipsieve("run", "--read", ".", "--out", "memory://run"))


def test_store_options_unknown(folder: Path, clipsieve: Clipsieve) -> None:
    (folder / "recipe.yaml").write_text("read: x.csv\nstorage_options: {s33: {key: a, secret: b}}\n")
    assert ends_as_documented("store-options-unknown", clipsieve("run", "recipe.yaml"))


def test_store_no_source(folder: Path, store: Server, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-no-source", clipsieve("run", "--read", "s3://no-such-bucket/x.csv"))


def test_store_read_only(clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-read-only", clipsieve("run", "--read", ".", "--out", "https://example.org/run"))


def test_store_password(clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-password", clipsieve("run", "--read", "https://me:secret@host/x.csv"))


def test_store_token(folder: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-token", clipsieve("run", "--read", "https://ghp_TOKEN@host/x.csv"))
    for allowed in (f"{folder}/a@b/x.csv", "abfs://container@account/x.csv", "zip://a@2x.csv::x.zip"):
        assert Recipe.model_validate({"read": allowed}).read.path == (allowed,)


def test_store_without_bucket(folder: Path, store: Server, clipsieve: Clipsieve) -> None:
    assert ends_as_documented(
        "store-without-bucket", clipsieve("run", "--read", ".", "--out", "s3://no-such-bucket/run")
    )


def test_store_run_in_use(folder: Path, bucket: str, clipsieve: Clipsieve) -> None:
    with contextlib.closing(locked(place(f"{bucket}/run/.lock"))):
        assert ends_as_documented("store-run-in-use", clipsieve("run", "--read", ".", "--out", f"{bucket}/run"))


def reading_from_a_store_that(fault: Fault, folder: Path, bucket: str, store: Server) -> list[str]:
    write_source(folder / "data", "")
    put(folder / "data", f"{bucket}/data")
    store.goes_wrong("GET .*/rows0.parquet", fault, times=1000)
    return ["run", "--read", f"{bucket}/data/rows0.parquet"]


def test_store_expired(folder: Path, bucket: str, store: Server, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-expired", clipsieve(*reading_from_a_store_that(expired, folder, bucket, store)))


def test_store_denied(folder: Path, bucket: str, store: Server, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("store-denied", clipsieve(*reading_from_a_store_that(denied, folder, bucket, store)))


def test_ctrl_c(folder: Path, clipsieve: Clipsieve) -> None:
    (folder / "large.png").write_bytes(image_bytes("red", (160, 120)))
    json_lines(folder / "rows.jsonl", *[{"image": "large.png", "id": str(i)} for i in range(2700)])
    (folder / "recipe.yaml").write_text(
        "read: {path: rows.jsonl, shard_rows: 300}\nkeep: [blur >= 100]\nwrite: jsonl\n"
    )
    command = ("run", "recipe.yaml", "-q")
    process = subprocess.Popen(
        [*COMMAND, *command, "--out", "run", "--workers", "1"], stderr=subprocess.PIPE, text=True
    )
    while not list(folder.glob("run/ledger/*.parquet")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, printed = process.communicate()

    assert ends_as_documented("ctrl-c", (process.returncode, printed.strip()))
    assert time.monotonic() - began < 5
    assert len(list(folder.glob("run/ledger/*.parquet"))) < 9
    assert clipsieve(*command, "--out", "run") == (0, "")
    assert contents(folder / "run") == undisturbed(clipsieve, *command)


def test_closed_pipe(finished: Path) -> None:
    process = subprocess.Popen([*COMMAND, "show", "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert f"exit {process.wait()}" == ROWS["closed-pipe"].outcome
    assert process.stderr is not None
    assert process.stderr.read() == b""


LABEL = ("label", "run", "--labels", "red,blue", "-q")


@pytest.fixture
def embedded(folder: Path, clipsieve: Clipsieve) -> Path:
    """A finished run of one row in ``run`` that kept its vector."""
    ONE(folder)
    assert clipsieve(*RUN, "--vectors", "--model", "demo") == (0, "")
    return folder / "run"


def test_label_without_vectors(finished: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("label-without-vectors", clipsieve(*LABEL))


def test_label_unfinished(embedded: Path, clipsieve: Clipsieve) -> None:
    (embedded / "ledger" / "00000.parquet").unlink()
    assert ends_as_documented("label-unfinished", clipsieve(*LABEL))


def test_label_of_another_model(embedded: Path, clipsieve: Clipsieve) -> None:
    written = (embedded / "recipe.yaml").read_text()
    (embedded / "recipe.yaml").write_text(written.replace("encoder: fp32-", "encoder: fp32-0"))
    assert ends_as_documented("label-of-another-model", clipsieve(*LABEL))
    assert not (embedded / "added").exists()


def test_label_decided(folder: Path, clipsieve: Clipsieve) -> None:
    scores = "scores: {label: {labels: [red, blue]}}\nmodel: demo\nvectors: true\n"
    stored("recipe.yaml", f"read: {ONE(folder)}\nkeep: label in (red)\n{scores}".encode())(folder)
    assert clipsieve("run", "recipe.yaml", "--out", "run", "-q") == (0, "")
    assert ends_as_documented("label-decided", clipsieve(*LABEL))


def test_label_with_source_flags(embedded: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("label-with-source-flags", clipsieve(*LABEL, "--out", "x", "--on-error", "keep"))


def test_damaged_labels(embedded: Path, clipsieve: Clipsieve) -> None:
    assert clipsieve(*LABEL) == (0, "")
    (embedded / "added" / "label" / "00000.parquet").write_bytes(b"damaged")
    assert ends_as_documented("damaged-labels", clipsieve("show", "run"))
    assert clipsieve(*LABEL) == (0, "")
    assert clipsieve("show", "run") == (0, "")


DEDUP = ("dedup", "run", "-q")


def test_against_nothing(embedded: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("against-nothing", clipsieve(*DEDUP, "--against", "gone"))
    assert clipsieve(*DEDUP) == (0, "")  # what was refused has left nothing in the way


def test_against_itself(embedded: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("against-itself", clipsieve(*DEDUP, "--against", "run"))


def test_against_another_model(embedded: Path, clipsieve: Clipsieve) -> None:
    shutil.copytree(embedded, "other")
    recipe = Path("other", "recipe.yaml")
    recipe.write_text(recipe.read_text().replace("encoder: fp32-", "encoder: fp32-0"))
    assert ends_as_documented("against-another-model", clipsieve(*DEDUP, "--against", "other"))


def test_against_without_vectors(embedded: Path, clipsieve: Clipsieve) -> None:
    assert clipsieve("run", "--read", "rows.jsonl", "--out", "other", "-q") == (0, "")
    assert ends_as_documented("against-without-vectors", clipsieve(*DEDUP, "--against", "other"))


def test_dedup_without_vectors(finished: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("dedup-without-vectors", clipsieve(*DEDUP))


def test_dedup_onto_itself(embedded: Path, clipsieve: Clipsieve) -> None:
    assert ends_as_documented("dedup-onto-itself", clipsieve(*DEDUP, "--out", "run"))


def test_dedup_unfinished(embedded: Path, clipsieve: Clipsieve) -> None:
    (embedded / "ledger" / "00000.parquet").unlink()
    assert ends_as_documented("dedup-unfinished", clipsieve(*DEDUP))


def test_dedup_image_gone(embedded: Path, clipsieve: Clipsieve) -> None:
    (embedded.parent / "good.png").unlink()
    assert ends_as_documented("dedup-image-gone", clipsieve(*DEDUP, "--write", "webdataset"))
    assert ends_as_documented("dedup-image-gone", clipsieve(*DEDUP, "--method", "perceptual", "--out", "hashed"))


def test_dedup_source_changed(embedded: Path, clipsieve: Clipsieve) -> None:
    json_lines(embedded.parent / "rows.jsonl", GOOD, GOOD)
    assert ends_as_documented("dedup-source-changed", clipsieve(*DEDUP))


def test_full_terminal(finished: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, "show", "run"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ends_as_documented("full-terminal", (done.returncode, done.stderr.strip()))


@pytest.fixture
def as_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """A working folder that all may use, and a way to do without the rights of root in it."""

    @contextlib.contextmanager
    def without_rights() -> Iterator[None]:
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    with tempfile.TemporaryDirectory() as shared:
        os.chmod(shared, 0o777)
        monkeypatch.chdir(shared)
        Path("good.png").write_bytes(RED)
        ledger_of(json_lines(Path("warm.jsonl"), GOOD), out="warm")  # what is imported late may be closed to nobody
        yield without_rights
        for path in Path(shared).rglob("*"):
            path.chmod(0o700)


WithoutRights = Callable[[], contextlib.AbstractContextManager[None]]


def test_unreadable_image(as_nobody: WithoutRights) -> None:
    Path("secret.png").write_bytes(RED)
    os.chmod("secret.png", 0)
    json_lines(Path("rows.jsonl"), GOOD, {"image": "secret.png"}, GOOD)
    with as_nobody():
        ledger = ledger_of("rows.jsonl")
    assert [row["verdict"] for row in ledger] == ["kept", ROWS["unreadable-image"].outcome, "kept"]
    assert ROWS["unreadable-image"].says(ledger[1]["error"])


def test_unreadable_folder(as_nobody: WithoutRights, clipsieve: Clipsieve) -> None:
    Path("photos/secret").mkdir(parents=True)
    Path("photos/a.png").write_bytes(RED)
    os.chmod("photos/secret", 0)
    with as_nobody():
        assert ends_as_documented("unreadable-folder", clipsieve("run", "--read", "photos"))


# Indexes and searches: a finished run in `run`, its index in `index`, and a search that goes wrong.

Search = Callable[[Path], Sequence[str]]
URL = "clickhouse://user:s3cret@127.0.0.1:9"


def query(*flags: str) -> Search:
    return lambda folder: ("search", "index", *flags)


def indexing(place: str) -> Search:
    return lambda folder: ("index", "run", "--to", place)


def theirs(place: str) -> Search:
    """A search in a table that something else has made."""

    def build(folder: Path) -> Sequence[str]:
        rows = pa.table({"id": ["a"], "vector": pa.array([[1.0]], pa.list_(pa.float32(), 1))})
        if place.startswith("chdb"):
            store = open_store(place, create=True)._connection  # type: ignore[attr-defined]
            store.run("CREATE DATABASE clipsieve")
            store.run("CREATE TABLE clipsieve.images (id String) ENGINE = MergeTree ORDER BY id")
            store.close()
        else:
            lancedb.connect(folder / place).create_table("images", rows)
        return ("search", place, "red")

    return build


def told(change: Callable[[dict[str, Any]], object]) -> Search:
    """A search in an index that says something else of itself."""

    def build(folder: Path) -> Sequence[str]:
        store = open_store(folder / "index")
        about = json.loads(store.about() or "")
        change(about)
        store.describe(json.dumps(about))
        return ("search", "index", "red")

    return build


def lacking_column(folder: Path) -> Sequence[str]:
    lancedb.connect(folder / "index").open_table("images").drop_columns(["caption"])
    return ("search", "index", "red")


def damaged_index(folder: Path) -> Sequence[str]:
    for path in (folder / "index" / "images.lance" / "data").iterdir():
        path.write_bytes(b"damaged")
    return ("search", "index", "red", "--model", "demo")


def another_model(folder: Path) -> str:
    """The bundled model under another name, with a space more in one of its files."""
    shutil.copytree(DEMO, folder / "other")
    with open(folder / "other" / "config.json", "a") as file:
        file.write(" ")
    return "other"


def again(folder: Path, **recipe: Any) -> None:
    """Another run of the same, into ``again``."""
    api.execute(Recipe.build({"read": "rows.jsonl", **recipe}), folder / "again", api.Silent())


def run_of_another_model(folder: Path) -> Sequence[str]:
    again(folder, model=another_model(folder), vectors=True)
    return ("index", "again", "--to", "index")


def without_source(folder: Path) -> Sequence[str]:
    again(folder, model="demo", vectors=True)
    (folder / "rows.jsonl").unlink()
    return ("index", "again", "--to", "fresh")


def of_unfinished(folder: Path) -> Sequence[str]:
    (folder / "run" / "ledger" / "00000.parquet").unlink()
    return ("index", "run", "--to", "fresh")


def of_run_without_vectors(folder: Path) -> Sequence[str]:
    again(folder, keep="width >= 1")
    return ("index", "again", "--to", "fresh")


def something_else(place: str) -> Search:
    def build(folder: Path) -> Sequence[str]:
        (folder / "taken").mkdir()
        (folder / "taken" / "thesis.txt").write_text("chapter 1")
        return ("index", "run", "--to", place)

    return build


SEARCHES: dict[str, Search] = {
    "index-without-vectors": of_run_without_vectors,
    "index-unfinished": of_unfinished,
    "index-source-gone": without_source,
    "index-is-foreign": something_else("taken"),
    "chdb-is-foreign": something_else("chdb://taken"),
    "index-is-file": indexing("good.png"),
    "index-of-another-model": run_of_another_model,
    "no-index": lambda folder: ("search", "gone", "red"),
    "search-a-run": lambda folder: ("search", "run", "red"),
    "damaged-index": damaged_index,
    "foreign-lance-table": theirs("theirs"),
    "foreign-table": theirs("chdb://theirs"),
    "lacking-column": lacking_column,
    "other-dimensions": told(lambda about: about.update(dim=65)),
    "newer-index": told(lambda about: about.update(format=99)),
    "unknown-store": lambda folder: ("search", "mysql://host/table", "red"),
    "index-in-a-store": indexing("s3://bucket/index"),
    "url-without-table": lambda folder: ("search", URL, "red"),
    "url-with-sql": indexing(f"{URL}/images;DROP"),
    "chdb-with-settings": lambda folder: ("search", "chdb://x?mode=ro", "red"),
    "unreachable-database": indexing(f"{URL}/db.images"),
    "no-query": query(),
    "empty-query": query(" "),
    "k-of-zero": query("red", "-k", "0"),
    "where-unknown": query("red", "--where", "widht >= 1"),
    "where-sql": query("red", "--where", "width > 1; DROP TABLE images"),
    "where-rank": query("red", "--where", "width in top 10%"),
    "where-text-for-number": query("red", "--where", 'width >= "x"'),
    "sql-in-query": query("'; DROP TABLE images; --", "--where", "width >= 1"),
    "search-by-another-model": lambda folder: ("search", "index", "red", "--model", another_model(folder)),
    "query-image-missing": query("--image", "gone.png"),
    "query-image-broken": query("--image", "rows.jsonl"),
}


@pytest.fixture(scope="module")
def searchable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, its finished run and its index."""
    folder = tmp_path_factory.mktemp("searchable")
    (folder / "good.png").write_bytes(RED)
    recipe = {"read": str(folder / ONE(folder)), "model": "demo", "keep": "width >= 1", "vectors": True}
    api.execute(Recipe.build(recipe), folder / "run", api.Silent())
    api.index_run(folder / "run", folder / "index")
    return folder


@pytest.fixture
def search_folder(searchable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in a folder of its own, in which the test works."""
    monkeypatch.chdir(shutil.copytree(searchable, tmp_path / "here"))
    return tmp_path / "here"


@pytest.mark.parametrize("row", rows_of(SEARCHES))
def test_an_index_or_search(row: Row, search_folder: Path, clipsieve: Clipsieve) -> None:
    request = SEARCHES[row.case](search_folder)
    assert ends_as_documented(row.case, clipsieve(*request))
    assert not (search_folder / "fresh").exists()  # no index was begun in vain


EXTRAS = {
    "no-lancedb": ("lancedb", "fresh"),
    "no-chdb": ("chdb", "chdb://fresh"),
    "no-clickhouse-connect": ("clickhouse_connect", f"{URL}/db.images"),
}
"""The library that is not there, and the kind of index that needs it."""


@pytest.mark.parametrize("row", rows_of(EXTRAS))
def test_a_missing_extra(row: Row, search_folder: Path, clipsieve: Clipsieve, monkeypatch: pytest.MonkeyPatch) -> None:
    module, place = EXTRAS[row.case]
    monkeypatch.setitem(sys.modules, module, None)
    assert ends_as_documented(row.case, clipsieve("index", "run", "--to", place))
    assert not (search_folder / "fresh").exists()


def test_interrupted_index(search_folder: Path, clipsieve: Clipsieve, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LanceStore, "put", interrupted)
        assert ends_as_documented("interrupted-index", clipsieve("index", "run", "--to", "fresh"))
    assert clipsieve("index", "run", "--to", "fresh", "-q") == (0, "")
    assert len(Index.open("fresh")) == 1


# Deciding later: commands on a finished run.


@pytest.fixture
def decided(folder: Path, clipsieve: Clipsieve) -> Path:
    """A finished run in ``run`` whose only image an early rule dropped, so that it has no clip_score and no vector."""
    json_lines(folder / "rows.jsonl", {**GOOD, "text": "a red thing"})
    keep = ("--keep", "blur >= 1e9", "--keep", "clip_score >= -1")
    assert clipsieve(*RUN, "--model", "demo", *keep, "--vectors") == (0, "")
    return folder / "run"


LATER: dict[str, tuple[str, ...]] = {
    "tune-nothing": ("tune", "gone"),
    "tune-unknown-score": ("tune", "run", "--keep", "blurr >= 1"),
    "tune-no-share": ("tune", "run", "--suggest", "0.3"),
    "tune-share-of-nothing": ("tune", "run", "--suggest", "clip_score=30%"),
    "tune-before-added": ("tune", "run", "--keep", "neg_clip_loss >= 0"),
    "run-before-added": ("run", "--read", "rows.jsonl", "--keep", "neg_clip_loss >= 0", "--out", "x"),
    "apply-lacking": ("apply", "run", "--keep", "blur >= 1", "--keep", "clip_score >= -1"),
    "apply-onto-itself": ("apply", "run", "--out", "run"),
    "apply-no-rule": ("apply", "run", "--keep", "{rule: blur >= 1, dorp: image}"),
    "add-unknown-score": ("add-score", "run", "neg_clip_los"),
    "add-unknown-option": ("add-score", "run", "neg_clip_loss", "--option", "tua=1"),
    "add-to-nothing": ("add-score", "run", "neg_clip_loss"),
    "report-no-page": ("report", "run", "-o", "good.png"),
    "export-unknown-format": ("export", "run", "--to", "parquet:x"),
    "export-taken": ("export", "run", "--to", "csv:taken.csv"),
    "export-no-uids": ("export", "run", "--to", "datacomp:uids.npy", "--verdict", "all"),
    "view-of-nothing": ("view", "gone"),
    "view-elsewhere": ("view", "run", "--host", "192.0.2.1"),
}


@pytest.mark.parametrize("row", rows_of(LATER))
def test_deciding_later(row: Row, decided: Path, clipsieve: Clipsieve) -> None:
    (decided.parent / "taken.csv").write_text("mine")
    assert ends_as_documented(row.case, clipsieve(*LATER[row.case]))
    assert (decided.parent / "good.png").read_bytes() == RED
    assert (decided.parent / "taken.csv").read_text() == "mine"


def test_tune_unfinished(decided: Path, clipsieve: Clipsieve) -> None:
    (decided / "ledger" / "00000.parquet").unlink()
    assert ends_as_documented("tune-unfinished", clipsieve("tune", "run"))


def test_apply_source_changed(decided: Path, clipsieve: Clipsieve) -> None:
    json_lines(decided.parent / "rows.jsonl", GOOD, GOOD)
    assert ends_as_documented("apply-source-changed", clipsieve("apply", "run", "-q"))


def test_apply_image_gone(decided: Path, clipsieve: Clipsieve) -> None:
    (decided.parent / "good.png").unlink()
    keep = ("--keep", "width >= 1", "--write", "webdataset", "--fill")
    assert ends_as_documented("apply-image-gone", clipsieve("apply", "run", "-q", *keep))


def test_view_port_in_use(decided: Path, clipsieve: Clipsieve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, line = clipsieve("view", "run", "--port", port)
        assert ends_as_documented("view-port-in-use", (code, line.replace(port, "8765")))


def test_view_without_extra(decided: Path, clipsieve: Clipsieve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("clipsieve.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert ends_as_documented("view-without-extra", clipsieve("view", "run"))


# Documentation and tests together.


def test_every_row_is_tried() -> None:
    named = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    tables = [IMAGES, URLS, CAPTIONS, SOURCES, REQUESTS, SEARCHES, EXTRAS, LATER]
    tried = [case for cases in tables for case in cases]

    assert len(set(tried)) == len(tried)
    assert set(tried) <= ROWS.keys()
    assert ROWS.keys() - set(tried) <= named
    assert sum(len(rows) for rows in DOCUMENTED.values()) == len(ROWS)  # no case stands twice


def test_a_wildcard_stands_for_anything_and_nothing_else_does() -> None:
    row = Row("x", "exit 1", "… is a file; … (1.5)")
    assert row.says("/a/b is a file; choose (1.5)")
    assert not row.says("/a/b is a file; choose (1x5)")
    assert not row.says("/a/b is a file; choose (1.5) and more")
    assert not any(after == before for before, after in pairwise(sorted(ROWS)))


def test_inline_bytes_fail_as_files_do(folder: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(RED[:-500]).decode()
    (found,) = ledger_of(json_lines(folder / "rows.jsonl", {"image": uri}))
    assert ROWS["truncated-png"].says(found["error"])
