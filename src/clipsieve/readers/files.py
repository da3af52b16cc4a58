"""Finds the files of a source, by path, glob or folder, and opens them as seekable binary files; fsspec everywhere.

``.gz`` and ``.zst`` are opened as what is inside: all offsets are those of the decompressed bytes.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from clipsieve.core.contracts import SourceFile
from clipsieve.core.ranges import bucket, is_http, is_remote, open_remote, open_stream, protocol
from clipsieve.core.ranges import filesystem as filesystem_of
from clipsieve.core.retry import retrying, shown
from clipsieve.errors import ClipsieveError, SourceError
from clipsieve.readers.images import is_image

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Extension to the name of the codec in Arrow."""

CHUNK = 4 * 2**20
"""Bytes read at a time where a whole file is streamed."""

_BRACES = re.compile(r"\{([^{}]*,[^{}]*|\d+\.\.\d+)\}")
_MAGIC = re.compile(r"[*?\[]")
_OF_RUNS = {"recipe.yaml", "shards.json"}
"""By these files a run folder is known; one within the source, where it lands by default, is no part of it."""

_VERSIONS = ("ETag", "etag", "blob_id", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What one path of the request stands for: files in order, and the folder when the path is one."""

    path: str
    files: tuple[SourceFile, ...]
    folder: str | None = None


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns what the filesystem has to say about ``path`` into a ``SourceError`` of one line."""
    try:
        yield
    except ClipsieveError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file or folder; check the path") from None
    except PermissionError as failure:
        if is_http(path):
            raise SourceError(
                f"{shown(path)}: {failure.strerror}; check the URL, and whether all may read it"
            ) from None
        if protocol(path):
            raise SourceError(f"{path}: {failure.strerror}; check what the credentials may read") from None
        raise SourceError(f"{path}: permission denied; make it readable for this user") from None
    except (OSError, EOFError, ImportError, ValueError, pa.ArrowException) as failure:
        where = shown(path) if is_http(path) else path
        raise SourceError(f"{where}: cannot be read: {' '.join(str(failure).split())}") from failure


def find(path: str) -> Listing:
    """Lists the files of a path, brace glob, glob or folder, sorted; hidden files and ``_names`` are left out.

    Raises ``SourceError`` when there is nothing, or when a folder cannot be read.
    """
    with reading(path):
        filesystem, root = filesystem_of(path)
        if protocol(path):
            # Files may have come since the store was last asked; Hugging Face is asked about the repository here.
            with suppress(FileNotFoundError):
                retrying(path, lambda: filesystem.invalidate_cache(_MAGIC.split(root)[0]))
        if _is_folder(filesystem, root, path):
            return Listing(path=path, files=tuple(_walk(filesystem, root)), folder=_spelled(filesystem, root))
        if (there := _info(filesystem, root, path)) is not None:
            info = _followed(there)
            if info["type"] == "other":
                raise SourceError(f"{path}: a pipe, socket or device; write its data to a file first")
            return Listing(path=path, files=(_source_file(filesystem, info),))
    if is_http(path):
        raise SourceError(f"{shown(path)}: no such file (the web server says so); check the URL")
    if protocol(path) and not _MAGIC.search(path) and braces(path) == [path]:
        raise SourceError(f"{path}: {_what_is_missing(filesystem, path)}")
    found: dict[str, SourceFile] = {}
    for pattern in braces(path):
        with reading(pattern):
            name = filesystem._strip_protocol(pattern)
            look = partial(_matched, filesystem, name)
            matched = retrying(pattern, look) if protocol(path) else look()
        if not matched:
            raise SourceError(f"{pattern}: no matching files; check the path, and quote a glob on the command line")
        found |= {file.path: file for file in matched}
    return Listing(path=path, files=tuple(found[name] for name in sorted(found)))


def _what_is_missing(filesystem: Any, path: str) -> str:
    """Why there is nothing at a path of a store: its bucket is not there, or there is nothing of the name in it."""
    what = bucket(path)
    try:
        retrying(path, lambda: filesystem.info(what.partition(" ")[2]))
    except FileNotFoundError:
        private = ", and HF_TOKEN where it is private" if protocol(path) == "hf" else ""
        return f"there is no {what}; check its name{private}"
    except OSError:  # who may read files need not be allowed to ask for the bucket
        pass
    return "no such file or folder; check the path"


def braces(pattern: str) -> list[str]:
    """Expands ``{a,b}`` and ``{000..012}``; the numbers of a range keep their leading zeros."""
    brace = _BRACES.search(pattern)
    if brace is None:
        return [pattern]
    inside = brace[1]
    if "," in inside:
        choices = inside.split(",")
    else:
        first, last = inside.split("..")
        step = 1 if int(first) <= int(last) else -1
        choices = [str(n).zfill(len(first)) for n in range(int(first), int(last) + step, step)]
    head, tail = pattern[: brace.start()], pattern[brace.end() :]
    return [expanded for choice in choices for expanded in braces(head + choice + tail)]


def _info(filesystem: Any, root: str, path: str) -> dict[str, Any] | None:
    """What is to be known of a file; None where there is none."""
    if not protocol(path):
        return dict(filesystem.info(root)) if filesystem.exists(root) else None
    try:
        return dict(retrying(path, lambda: filesystem.info(root)))
    except FileNotFoundError:
        return None


def _is_folder(filesystem: Any, root: str, path: str) -> bool:
    # A web server has no folders, and would send the whole file to be searched for links.
    if is_http(path) and not path.endswith("/"):
        return False
    return bool(retrying(path, lambda: filesystem.isdir(root)) if protocol(path) else filesystem.isdir(root))


def _matched(filesystem: Any, pattern: str) -> list[SourceFile]:
    return list(_matches(filesystem, pattern))


def _matches(filesystem: Any, pattern: str) -> Iterator[SourceFile]:
    if not _MAGIC.search(pattern):
        if filesystem.isfile(pattern):
            yield _source_file(filesystem, filesystem.info(pattern))
        return
    fixed = _MAGIC.split(pattern)[0].rpartition("/")[0]
    all_asked_for = _hidden(pattern, fixed)
    for name, found in filesystem.glob(pattern, detail=True).items():
        info = _followed(found)
        if _is_listed(info) and (all_asked_for or not _hidden(name, fixed)):
            yield _source_file(filesystem, info)


def _walk(filesystem: Any, root: str) -> Iterator[SourceFile]:
    # Not fsspec's find or walk: they pass over folders that cannot be read, without a word.
    local = isinstance(filesystem, LocalFileSystem)
    found, folders, seen = [], [root], {os.path.realpath(root) if local else root}
    while folders:
        folder = folders.pop()
        listed = filesystem.ls(folder, detail=True) if local else _listed(filesystem, folder)
        if folder != root and {info["name"].rpartition("/")[2] for info in listed} >= _OF_RUNS:
            continue
        for info in map(_followed, listed):
            name = info["name"].rstrip("/")
            if _hidden(name, root) or name == folder:
                continue
            if info["type"] == "directory":
                real = os.path.realpath(name) if local else name
                if real not in seen:  # a link may lead back to where it is
                    seen.add(real)
                    folders.append(name)
            elif _is_listed(info):
                found.append(info)
    yield from (_source_file(filesystem, info) for info in sorted(found, key=lambda info: str(info["name"])))


def _listed(filesystem: Any, folder: str) -> list[dict[str, Any]]:
    return list(retrying(str(filesystem.unstrip_protocol(folder)), lambda: filesystem.ls(folder, detail=True)))


def _followed(info: dict[str, Any]) -> dict[str, Any]:
    """What a local link leads to, under the link's name; fsspec lists links as neither files nor folders."""
    if not info.get("islink"):
        return info
    try:
        there = os.stat(info["name"])
    except OSError:
        return info | {"type": "file"}  # what is wrong with it is said when it is read
    kind = "directory" if stat.S_ISDIR(there.st_mode) else "file" if stat.S_ISREG(there.st_mode) else "other"
    return info | {"type": kind, "size": there.st_size, "mtime": there.st_mtime}


def _is_listed(info: dict[str, Any]) -> bool:
    """Whether it is a file, or a pipe or device with the name of an image, which ends as a failed image."""
    return info["type"] == "file" or (info["type"] == "other" and is_image(info["name"]))


def _hidden(path: str, root: str) -> bool:
    return any(step.startswith((".", "_")) for step in path[len(root) :].split("/"))


def _source_file(filesystem: Any, info: dict[str, Any]) -> SourceFile:
    version = next((str(info[key]) for key in _VERSIONS if info.get(key) is not None), "")
    return SourceFile(path=_spelled(filesystem, info["name"]), size=int(info["size"] or 0), version=version)


def _spelled(filesystem: Any, path: str) -> str:
    """The path as ``fsspec.open`` takes it; a local one stays a plain path."""
    return path if isinstance(filesystem, LocalFileSystem) else str(filesystem.unstrip_protocol(path))


def extension(path: str) -> str:
    """The extension in lower case, beneath a compression: ``.jsonl`` of ``a.jsonl.gz``."""
    name = _without_query(path).rpartition("/")[2].lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    return name[name.rfind(".") :] if "." in name[1:] else ""


def compression(path: str) -> str | None:
    """The codec that the last extension names."""
    name = _without_query(path).lower()
    return next((codec for ending, codec in COMPRESSIONS.items() if name.endswith(ending)), None)


def _without_query(path: str) -> str:
    """A URL without what a web server is told beside the file's name, such as a signature; a path as it is."""
    return re.split(r"[?#]", path, maxsplit=1)[0] if is_http(path) else path


def open_file(path: str) -> BinaryIO:
    """Opens a file, decompressed, seekable (backwards at the price of a new start) and buffered."""
    with reading(path):
        if codec := compression(path):
            return io.BufferedReader(_Decompressed(path, codec), buffer_size=2**18)
        return cast(BinaryIO, open_stream(path) if is_remote(path) else fsspec.open(path, "rb").open())


def open_columns(path: str) -> BinaryIO:
    """Opens a file of which some stretches are read, here and there; a remote one without anything between them."""
    with reading(path):
        return open_remote(path) if is_remote(path) else cast(BinaryIO, fsspec.open(path, "rb").open())


class _Decompressed(io.RawIOBase):
    """The bytes inside a compressed file. Seeking forward reads on; seeking backward begins anew."""

    def __init__(self, path: str, codec: str) -> None:
        self._path = path
        self._codec = codec
        self._open()

    def _open(self) -> None:
        self._outer = open_stream(self._path) if is_remote(self._path) else fsspec.open(self._path, "rb").open()
        self._inner = pa.CompressedInputStream(self._outer, self._codec)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner_read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _inner_read(self, size: int) -> bytes:
        data: bytes = self._inner.read(size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            while self._inner_read(CHUNK):
                pass
            return self._position
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        if target < self._position:
            self._outer.close()
            self._open()
        while self._position < target and self._inner_read(min(CHUNK, target - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._outer.close()
        super().close()


class Cursor:
    """Reads ranges of files; the next range of the same file goes on where the last one ended."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._file: BinaryIO = io.BytesIO()

    def __reduce__(self) -> tuple[type[Cursor], tuple[()]]:
        """A copy in another process opens files of its own."""
        return Cursor, ()

    def read(self, path: str, start: int, stop: int) -> bytes:
        """The bytes ``[start, stop)``. Raises ``SourceError`` when the file ends before."""
        if path != self._path:
            self._file.close()
            self._file = open_file(path)
            self._path = path
        with reading(path):
            self._file.seek(start)
            data = self._file.read(stop - start)
        if len(data) < stop - start:
            raise SourceError(f"{path}: ends at byte {start + len(data)} of {stop}: changed since the run began")
        return data


class LineNumbers:
    """Line numbers of byte offsets, counted only when an error needs one."""

    def __init__(self) -> None:
        self._at = ("", 0, 1)

    def at(self, path: str, offset: int) -> int:
        """The number, from 1, of the line that begins at ``offset``."""
        known, position, line = self._at
        if known != path or position > offset:
            position, line = 0, 1
        with open_file(path) as file, reading(path):
            file.seek(position)
            while position < offset:
                data = file.read(min(CHUNK, offset - position))
                if not data:
                    break
                position += len(data)
                line += data.count(b"\n")
        self._at = (path, offset, line)
        return line


def head(path: str, size: int) -> bytes:
    """The first bytes of a file, at most ``size``."""
    with open_file(path) as file, reading(path):
        return file.read(size)


def total_size(files: Sequence[SourceFile]) -> int:
    """Bytes of all files as stored."""
    return sum(file.size for file in files)
