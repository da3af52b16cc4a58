"""A hub on this machine that speaks as much of huggingface.co's API as reading data sets takes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from tests.storage.server import Server, layered

_OF_REPOSITORY = re.compile(r"/api/datasets/([^/]+/[^/]+)(/revision/[^/]+)?")
_TREE = re.compile(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)/?(.*)")
_INFO = re.compile(r"/api/datasets/([^/]+/[^/]+)/paths-info/([^/]+)")
_FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


Reply: TypeAlias = tuple[str, list[tuple[str, str]], bytes]
"""Status, headers and body."""


@contextmanager
def hub(folder: Path) -> Iterator[Server]:
    """Each ``USER/NAME`` within ``folder`` is a data set."""
    with layered(Server(protocol="hf"), _Hub(folder)) as store:
        yield store


class _Hub:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        # WSGI gives UTF-8 as if it were Latin-1.
        path = environ["PATH_INFO"].encode("latin-1").decode()
        status, headers, body = self._answer(environ, path)
        start(status, [("Content-Length", str(len(body))), *headers])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: dict[str, Any], path: str) -> Reply:
        answers = ((_TREE, self._tree), (_INFO, self._info), (_FILE, self._file), (_OF_REPOSITORY, self._about))
        for pattern, answer in answers:
            if (asked := pattern.fullmatch(path)) is None:
                continue
            if not (self._folder / asked[1]).is_dir():
                return _refused("401 Unauthorized", "RepoNotFound", "Invalid username or password.")
            return answer(environ, *asked.groups())
        return _refused("404 Not Found", "EntryNotFound", "no such page")

    def _about(self, _: dict[str, Any], repository: str, *__: object) -> Reply:
        return _json({"_id": "0", "id": repository, "sha": "0" * 40, "private": False, "tags": [], "siblings": []})

    def _tree(self, _: dict[str, Any], repository: str, revision: str, within: str) -> Reply:
        folder = self._folder / repository / within
        if not folder.is_dir():
            return _refused("404 Not Found", "EntryNotFound", f"{within} does not exist on {revision}")
        return _json([self._entry(repository, path) for path in sorted(folder.iterdir())])

    def _info(self, environ: dict[str, Any], repository: str, _: str) -> Reply:
        asked = parse_qs(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode())
        paths = [self._folder / repository / name for name in asked["paths"]]
        return _json([self._entry(repository, path) for path in paths if path.exists()])

    def _file(self, environ: dict[str, Any], repository: str, _: str, within: str) -> Reply:
        path = self._folder / repository / within
        if not path.is_file():
            return _refused("404 Not Found", "EntryNotFound", "Entry not found")
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", environ.get("HTTP_RANGE", ""))
        if wanted is None:
            return "200 OK", [], data
        first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
        if first >= len(data):
            return "416 Range Not Satisfiable", [], b""
        part = data[first : last + 1]
        return (
            "206 Partial Content",
            [("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")],
            part,
        )

    def _entry(self, repository: str, path: Path) -> dict[str, Any]:
        name = str(path.relative_to(self._folder / repository))
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        data = path.read_bytes()
        return {"type": "file", "path": name, "oid": hashlib.sha1(data).hexdigest(), "size": len(data)}


def _json(found: object) -> Reply:
    return "200 OK", [("Content-Type", "application/json")], json.dumps(found).encode()


def _refused(status: str, code: str, message: str) -> Reply:
    return status, [("X-Error-Code", code), ("X-Error-Message", message)], b""
