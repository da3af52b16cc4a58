"""A source on a web server: by ranges where the server gives them, else fetched whole, once each time it is read."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import clipsieve
from clipsieve.core import retry
from clipsieve.errors import ClipsieveError
from clipsieve.readers import files
from tests.storage.conftest import write_source


class Whole(http.server.SimpleHTTPRequestHandler):
    """Gives the whole file whatever part is asked for."""

    def log_message(self, *_: object) -> None: ...


class Ranges(Whole):
    """Gives parts of files, and nothing that is not a part."""

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        assert wanted is not None, "a whole file was asked for"
        data = Path(self.translate_path(self.path)).read_bytes()
        part = data[int(wanted[1]) : int(wanted[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture(params=[Whole, Ranges])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    write_source(tmp_path / "data", "")
    handler = partial(request.param, directory=str(tmp_path / "data"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["rows0.parquet", "pairs.tar"])
def test_a_source_on_a_web_server(url: str, tmp_path: Path, name: str) -> None:
    there = clipsieve.run(read=f"{url}/{name}", keep=["width >= 32"], out=tmp_path / "there")
    here = clipsieve.run(read=f"{tmp_path}/data/{name}", keep=["width >= 32"], out=tmp_path / "here")
    assert there.counts == here.counts


@pytest.mark.parametrize("name", ["rows0.parquet", "pairs.tar", "paths.jsonl"])
def test_a_signed_url_is_what_its_name_says(url: str, tmp_path: Path, name: str) -> None:
    signed = f"{url}/{name}?X-Signature=a/b.csv&response=*[x]"
    (found,) = files.find(signed).files
    assert files.extension(found.path) == Path(name).suffix
    if name != "paths.jsonl":  # its images are not on that server
        there = clipsieve.run(read=signed, keep=["width >= 32"], out=tmp_path / "there")
        here = clipsieve.run(read=f"{tmp_path}/data/{name}", keep=["width >= 32"], out=tmp_path / "here")
        assert there.counts == here.counts


def test_extensions_and_queries() -> None:
    assert files.extension("https://host/a.jsonl.gz?b=c.csv#d.tar") == ".jsonl"
    assert files.compression("https://host/a.jsonl.gz?b=c.zst") == "gzip"
    assert files.extension("s3://bucket/a?b.csv") == files.extension("/data/a?b.csv") == ".csv"


class Chunked(Whole):
    """Says of no file how long it is."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (data[:1000], data[1000:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()


class Status(Whole):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:4]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()


@contextmanager
def served(handler: Any) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["rows0.parquet", "pairs.tar"])
def test_a_server_that_does_not_say_how_long_a_file_is(tmp_path: Path, name: str) -> None:
    write_source(tmp_path / "data", "")
    with served(partial(Chunked, directory=str(tmp_path / "data"))) as url:
        there = clipsieve.run(read=f"{url}/{name}", keep=["width >= 32"], out=tmp_path / "there")
    here = clipsieve.run(read=f"{tmp_path}/data/{name}", keep=["width >= 32"], out=tmp_path / "here")
    assert there.counts == here.counts


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, r"no such file \(the web server says so\); check the URL"),
        (403, r"access denied \(HTTP status 403\); check the URL, and whether all may read it"),
        (401, r"the credentials are not accepted \(HTTP status 401\)"),
        (418, r"cannot be read: HTTP status 418"),
        (503, r"the store does not answer \(HTTP status 503\); when it does, run the same command again"),
    ],
)
def test_a_refusal_is_told_by_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    monkeypatch.setattr(retry, "_FIRST_WAIT", 0.0)
    with served(Status) as url, pytest.raises(ClipsieveError, match=rf"/x.csv\?\.\.\.: {said}") as ended:
        clipsieve.run(read=f"{url}/{status}/x.csv?signature=secret", out=tmp_path / "run")
    assert "secret" not in str(ended.value)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ClipsieveError, match=r"http://127.0.0.1:1/x.csv: the store does not answer \(Connect call failed"
    ):
        clipsieve.run(read="http://127.0.0.1:1/x.csv", out=tmp_path / "run")
