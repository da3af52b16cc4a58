"""A source on a web server: by ranges where the server gives them, else fetched whole, once each time it is read."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import clipsieve
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
