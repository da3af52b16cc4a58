"""Every way a cell can name an image, and what is said when there is none behind it."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pytest

from clipsieve.core import fetch
from clipsieve.core.fetch import ImageSource, from_cell, from_part
from clipsieve.errors import ImageError, StoreError

DATA = b"the bytes of an image"
URI = "data:image/png;base64," + base64.b64encode(DATA).decode()


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A folder with ``cat.jpg`` and ``photos.tar``, which holds ``a/cat.jpg``; both have the same bytes."""
    (tmp_path / "cat.jpg").write_bytes(DATA)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        member = tarfile.TarInfo("a/cat.jpg")
        member.size = len(DATA)
        tar.addfile(member, io.BytesIO(DATA))
    return str(tmp_path)


def test_many_threads_read_the_index_of_a_tar_once(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    begun = threading.Barrier(8)

    def opening(path: str) -> BinaryIO:
        opened.append(path)
        time.sleep(0.1)
        return io.BytesIO((Path(root) / "photos.tar").read_bytes())

    def read(_: int) -> bytes:
        begun.wait()
        return ImageSource(path="memory://photos.tar", member="a/cat.jpg").read()

    fsspec.filesystem("memory").pipe("/photos.tar", (Path(root) / "photos.tar").read_bytes())
    monkeypatch.setattr(fetch, "open_stream", opening)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, range(8))) == [DATA] * 8
    assert opened == ["memory://photos.tar"]


@pytest.mark.parametrize(
    ("cell", "reference"),
    [
        ("cat.jpg", "{root}/cat.jpg"),
        (" cat.jpg\n", "{root}/cat.jpg"),
        (DATA, None),
        (URI, None),
        ({"bytes": DATA, "path": "cat.jpg"}, "cat.jpg"),
        ({"bytes": URI, "path": "cat.jpg"}, "cat.jpg"),
        ({"bytes": None, "path": "cat.jpg"}, "{root}/cat.jpg"),
        ({"path": "cat.jpg"}, "{root}/cat.jpg"),
    ],
)
def test_cells_that_hold_an_image(root: str, cell: Any, reference: str | None) -> None:
    source = from_cell(cell, root)

    assert source.read() == DATA
    assert source.reference == (reference and reference.format(root=root))


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        (None, "no image: the cell is null"),
        (float("nan"), "no image: the cell is null"),
        ("", "no image: the cell is empty"),
        ("  ", "no image: the cell is empty"),
        (b"", "empty: 0 bytes"),
        (7, "no image: the cell holds int, neither a path nor bytes"),
        ({"bytes": None, "path": None}, "no image: the cell is null"),
        ("data:image/png,%89PNG", "no image: a data URI that is not base64"),
        ("data:image/png;base64,?", "no image: broken base64 in a data URI"),
        ("dog.jpg", "missing: no such file"),
        (".", "not a file: it is a folder"),
        ("https://example.org/cat.jpg", "not fetched: images by URL are turned off; download them first"),
    ],
)
def test_cells_without_an_image(root: str, cell: Any, error: str) -> None:
    with pytest.raises(ImageError) as raised:
        from_cell(cell, root).read()

    assert str(raised.value) == error


def test_absolute_paths_and_urls_ignore_the_root(root: str) -> None:
    fsspec.filesystem("memory").pipe("/fetch-test/cat.jpg", DATA)

    assert from_cell(f"{root}/cat.jpg", "/elsewhere").read() == DATA
    assert from_cell("memory://fetch-test/cat.jpg", root).read() == DATA


@pytest.mark.parametrize(
    ("cell", "protocol"),
    [
        ("webhdfs://127.0.0.1:9/x", "webhdfs"),
        ("ftp://127.0.0.1:9/x", "ftp"),
        ("zip://a.png::webhdfs://127.0.0.1:9/x", "webhdfs"),
        ("reference://a.png::/tmp/refs.json", "reference"),
        ("simplecache::s3://bucket/a.png", "simplecache"),
        ("dir::/etc", "dir"),
        ("zip://a.png::data:text/plain,x", "data"),
        ("lakefs://x/y", "lakefs"),
        ("FTP://127.0.0.1:9/x", "of no known name"),
        ("\x1b[31m://x", "of no known name"),
    ],
)
def test_other_protocols_than_those_of_files_and_stores_are_refused(cell: str, protocol: str) -> None:
    with pytest.raises(ImageError) as raised:
        from_cell(cell, "").read()

    assert str(raised.value) == f"refused: protocol {protocol}"


def test_a_file_in_an_archive_can_be_an_image(root: str) -> None:
    with zipfile.ZipFile(f"{root}/photos.zip", "w") as archive:
        archive.writestr("cat.jpg", DATA)
    fsspec.filesystem("memory").pipe("/fetch-test/photos.zip", Path(f"{root}/photos.zip").read_bytes())

    assert from_cell(f"zip://cat.jpg::{root}/photos.zip", "").read() == DATA
    assert from_cell("zip://cat.jpg::memory://fetch-test/photos.zip", "").read() == DATA
    assert from_cell(f"tar://a/cat.jpg::file://{root}/photos.tar", "").read() == DATA


@pytest.mark.parametrize(
    "cell", ["zip://a.png::{pipe}", "tar://a.png::file://{pipe}", "zip://a.png::local://{pipe}", "file://{pipe}::zip"]
)
def test_a_pipe_in_a_chain_is_not_opened(tmp_path: Path, cell: str) -> None:
    pipe = tmp_path / "pipe.zip"
    os.mkfifo(pipe)

    with pytest.raises(ImageError, match="not a file: it is a pipe, socket or device"):
        from_cell(cell.format(pipe=pipe), "").read()


@pytest.mark.parametrize(
    ("path", "reference"),
    [
        ("https://me:s3cret@h/x.png", "https://***@h/x.png"),
        ("zip://a@2x.png::https://me:s3cret@h/x.zip", "zip://***@2x.png::https://***@h/x.zip"),
        ("/photos/a@2x.png", "/photos/a@2x.png"),
    ],
)
def test_a_reference_holds_no_password(path: str, reference: str) -> None:
    assert ImageSource(path=path).reference == reference


@pytest.mark.parametrize("path", ["s3://KEY:s3cret@bucket/x.png", "zip://a.png::s3://KEY:s3cret@bucket/x.zip"])
def test_a_failure_repeats_no_password(path: str) -> None:
    with pytest.raises(ImageError) as raised:
        from_cell(path, "").read()

    assert str(raised.value) == "unreadable: a password in the URL; use storage_options"


def test_when_files_run_out_no_image_is_to_blame(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(fsspec, "open", full)
    with pytest.raises(StoreError, match="too many open files; raise the limit"):
        from_cell("cat.jpg", root).read()


def part(**reference: Any) -> str:
    return json.dumps(reference)


@pytest.mark.parametrize(
    ("source_ref", "reference"),
    [
        (part(path="cat.jpg"), "{root}/cat.jpg"),
        (part(path="photos.tar", member="a/cat.jpg"), "{root}/photos.tar::a/cat.jpg"),
        (part(path="photos.tar", member="a/cat.jpg", byte_offset=512, byte_size=21), "{root}/photos.tar::a/cat.jpg"),
        (part(path="photos.tar", byte_offset=512, byte_size=21), "{root}/photos.tar"),
    ],
)
def test_a_source_ref_leads_to_the_bytes(root: str, source_ref: str, reference: str) -> None:
    source = from_part(None, source_ref, None, root)

    assert source.read() == DATA
    assert source.reference == reference.format(root=root)


def test_inline_bytes_come_before_a_source_ref() -> None:
    source = from_part(DATA, part(path="gone.tar", member="cat.jpg", frame_index=2), None, "")

    assert (source.read(), source.reference, source.frame) == (DATA, "gone.tar::cat.jpg", 2)


@pytest.mark.parametrize(
    ("source_ref", "materialize_error", "error"),
    [
        (None, None, "no image: no binary_content and no source_ref"),
        (None, "HTTP 404", "HTTP 404"),
        ("{", None, "no image: source_ref is not JSON"),
        (part(path="photos.tar", member="b/dog.jpg"), None, "missing: no member 'b/dog.jpg' in the tar"),
        (
            part(path="photos.tar", byte_offset=512, byte_size=99_999),
            None,
            "truncated: 9728 of 99999 bytes at offset 512",
        ),
        (part(path="cat.jpg", member="x"), None, "unreadable: "),
    ],
)
def test_parts_without_an_image(root: str, source_ref: str, materialize_error: str | None, error: str) -> None:
    with pytest.raises(ImageError) as raised:
        from_part(None, source_ref, materialize_error, root).read()

    assert str(raised.value).startswith(error)


def test_nothing_is_opened_before_read() -> None:
    assert from_cell("/nowhere/cat.jpg", "").path == "/nowhere/cat.jpg"


def test_a_source_of_nothing_says_so() -> None:
    with pytest.raises(ImageError, match="no image: neither bytes nor a path"):
        ImageSource().read()


def test_a_huge_file_is_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 20)

    with pytest.raises(ImageError, match="too large: more than 20 bytes"):
        from_cell("cat.jpg", root).read()


def test_a_tar_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    for first in (b"x", b"x" * 5000):
        with tarfile.open(path, "w") as tar:
            for name, data in (("first", first), ("image", b"bytes")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        assert ImageSource(path=str(path), member="image").read() == b"bytes"
