"""From the cell of an image column to the encoded bytes; the only code that opens an image.

A cell may hold bytes, a path, a base64 data URI, a ``{bytes, path}`` struct or, in interleaved rows, inline
``binary_content`` or a ``source_ref``. Nothing is read before ``ImageSource.read``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from clipsieve.core.descriptors import out_of_files
from clipsieve.core.ranges import is_remote, open_stream, read_range, read_whole
from clipsieve.core.recent import Recent
from clipsieve.core.retry import in_words
from clipsieve.core.text import without_password
from clipsieve.errors import ImageError, StoreError

if TYPE_CHECKING:
    from clipsieve.core.urls import FetchPolicy

MAX_BYTES = 256 * 2**20
"""Largest encoded image that is read, in bytes; real photographs stay under a tenth of it."""

PROTOCOLS = frozenset(
    ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "memory", "zip", "tar")
)
"""Where an image that a row names may be: files of this machine, object stores, and archives in either.

fsspec knows dozens more, which would connect to any host of this network that a row names.
"""

_HTTP = re.compile(r"https?://", re.IGNORECASE)
_CHAINED_HTTP = re.compile(r"::https?://", re.IGNORECASE)
_CREDENTIALS = re.compile(r"://[^/?#]*@")
_WORD = re.compile(r"[a-z]{1,20}")

Kind = TypeVar("Kind", bound="ImageSource")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSource:
    """Where the encoded bytes of one image are.

    Exactly one of ``data`` (inline bytes), ``path`` (a file, or a tar with ``member`` or a byte range) and
    ``error`` (why there is nothing to read) leads to the image; ``path`` may also just name inline bytes. ``data`` may
    share the memory of the row's table. A URL is fetched as ``policy`` says, and not at all without one; ``kept`` is a
    file of what was fetched before, see ``core.kept``.
    """

    data: bytes | pa.Buffer | None = None
    path: str | None = None
    member: str | None = None
    offset: int | None = None
    size: int | None = None
    frame: int = 0
    error: str | None = None
    policy: FetchPolicy | None = None
    kept: str | None = None

    @property
    def by_url(self) -> bool:
        """Whether it is to be fetched from an ``http(s)`` URL: a whole file, since parts of one are not."""
        if self.path is None or self.data is not None or self.error is not None:
            return False
        return self.member is None and self.offset is None and _is_http(self.path)

    @property
    def inline(self) -> bytes | None:
        """The bytes that stand in the row itself, whatever they are; None where they must be fetched."""
        return None if self.data is None else bytes(self.data)

    @property
    def reference(self) -> str | None:
        """What a person calls the image: its path, or ``path::member`` inside a tar; a URL without the name and
        password that may be in it."""
        if self.path is None:
            return self.member
        path = without_credentials(self.path) if "://" in self.path else self.path
        return f"{path}::{self.member}" if self.member else path

    def read(self) -> bytes:
        """The encoded bytes. Raises ``ImageError`` when there are none, ``StoreError`` where no image is to blame."""
        if self.error is not None:
            raise ImageError(self.error)
        if (data := self.inline) is not None:
            return _checked(data)
        if self.path is None:
            raise ImageError("no image: neither bytes nor a path")
        if _is_http(self.path):
            return _checked(self._read_url(self.path))
        if _CHAINED_HTTP.search(self.path):
            raise ImageError("not fetched: a URL within a chain of filesystems; download the file first")
        _check_protocols(self.path)
        try:
            return _checked(self._read_file(self.path))
        except FileNotFoundError:
            raise ImageError("missing: no such file") from None
        except IsADirectoryError:
            raise ImageError("not a file: it is a folder") from None
        except PermissionError:
            raise ImageError("unreadable: permission denied") from None
        except (ImageError, StoreError):  # a store that is down is no fault of the image
            raise
        except Exception as failure:  # each filesystem of fsspec raises its own, and ImportError when it is not there
            if (ours := out_of_files(failure)) is not None:
                raise ours from failure
            if without_password(self.path) != self.path:  # which some failures repeat as the name of a bucket
                raise ImageError("unreadable: a password in the URL; use storage_options") from failure
            raise ImageError(f"unreadable: {in_words(failure)}") from failure

    def _read_url(self, url: str) -> bytes:
        from clipsieve.core.kept import read_kept
        from clipsieve.core.urls import read_url

        if self.member is not None or self.offset is not None:
            raise ImageError("not fetched: a part of a file by URL; download the file first")
        if self.policy is None:
            raise ImageError("not fetched: images by URL are turned off; download them first")
        known = None if self.kept is None else read_kept(self.kept, url)
        return read_url(url, self.policy) if known is None else known

    def _read_file(self, path: str) -> bytes:
        _check_regular(path)
        start, size = self.offset, self.size
        if self.member is not None and start is None:
            start, size = _member_range(path, self.member)
        if is_remote(path):
            return _read_remote(path, start, size)
        with fsspec.open(path, "rb") as file:
            if start is None:
                return bytes(file.read(MAX_BYTES + 1))
            file.seek(start)
            wanted = MAX_BYTES + 1 if size is None else min(size, MAX_BYTES + 1)
            data = bytes(file.read(wanted))
        return _whole(data, start, size)


def as_kind(source: ImageSource, kind: type[Kind], **more: Any) -> Kind:
    """The same image as another kind of source, with what that kind knows besides."""
    return kind(**{field.name: getattr(source, field.name) for field in fields(source)}, **more)


def _read_remote(path: str, start: int | None, size: int | None) -> bytes:
    """A file, or a range of one, in a request; its size is not asked for."""
    if start is None:
        return read_whole(path, MAX_BYTES + 1)
    wanted = MAX_BYTES + 1 if size is None else min(size, MAX_BYTES + 1)
    return _whole(read_range(path, start, start + wanted) if wanted else b"", start, size)


def _whole(data: bytes, start: int, size: int | None) -> bytes:
    if size is not None and len(data) < min(size, MAX_BYTES + 1):
        raise ImageError(f"truncated: {len(data)} of {size} bytes at offset {start}")
    return data


def _is_http(path: str) -> bool:
    return _HTTP.match(path) is not None


def without_credentials(url: str) -> str:
    """The URL, or chain of them, with ``***`` in place of a name and password in it."""
    return _CREDENTIALS.sub("://***@", url)


def _check_protocols(path: str) -> None:
    """Refuses what leads elsewhere than to files and object stores, in any link of a chain (``zip://a.png::s3://b``)."""
    for found, _ in _links(path):
        if found not in PROTOCOLS:
            raise ImageError(f"refused: protocol {found if _WORD.fullmatch(found) else 'of no known name'}")


def _links(path: str) -> Iterator[tuple[str, str]]:
    """Each link of a chain with its protocol, as fsspec finds it: a bare word is one where there are several links."""
    links = path.split("::")
    for link in links:
        bare = len(links) > 1 and (_WORD.fullmatch(link) or link in fsspec.available_protocols())
        yield link if bare else fsspec.core.split_protocol(link)[0] or "file", link


def _check_regular(path: str) -> None:
    """Refuses local pipes and devices, which may never end, in any link of a chain."""
    for protocol, link in _links(path):
        if protocol in ("file", "local"):
            mode = os.stat(LocalFileSystem._strip_protocol(link)).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise ImageError("not a file: it is a pipe, socket or device")


def _checked(data: bytes) -> bytes:
    if not data:
        raise ImageError("empty: 0 bytes")
    if len(data) > MAX_BYTES:
        raise ImageError(f"too large: more than {MAX_BYTES:,} bytes")
    return data


def _members(path: str) -> Mapping[str, tuple[int, int]]:
    """Where the members of a tar are."""
    opened = open_stream(path) if is_remote(path) else fsspec.open(path, "rb")
    with opened as file, tarfile.open(fileobj=file, mode="r:") as tar:
        return {info.name: (info.offset_data, info.size) for info in tar if info.isfile()}


_MEMBERS: Recent[Mapping[str, tuple[int, int]]] = Recent(8)
"""Where the members of the last few tars are, by path and version: of the threads that ask, one reads a tar through."""


def _member_range(path: str, member: str) -> tuple[int, int]:
    members = _MEMBERS.get((path, _version(path)), lambda: _members(path))
    try:
        return members[member]
    except KeyError:
        raise ImageError(f"missing: no member {member!r} in the tar") from None


def _version(path: str) -> tuple[int, int] | None:
    """Size and time of a local file, which tell one of a path from another and are quick to ask; None for others."""
    local = path.removeprefix("file://")
    if "://" in local:
        return None
    about = os.stat(local)
    return about.st_size, about.st_mtime_ns


@lru_cache(maxsize=256)  # many images lie in one tar
def resolve(path: str, root: str) -> str:
    """A path of the source as fsspec opens it: URLs and absolute paths as they are, others under ``root``."""
    if "://" in path or path.startswith("/") or not root:
        return path
    return posixpath.join(root, path)


def from_cell(cell: Any, root: str) -> ImageSource:
    """Reads the cell of an image column: a path, bytes, a data URI or a ``{bytes, path}`` struct, also as JSON text.

    An unusable cell gives a source whose ``error`` says so; nothing is raised and nothing is opened.
    """
    if isinstance(cell, os.PathLike):
        cell = os.fspath(cell)
    if isinstance(cell, str):
        text = cell.strip()
        if text.startswith("data:"):
            return _from_data_uri(text)
        if text.startswith('{"'):
            return _from_json(text, root)
        return ImageSource(path=resolve(text, root)) if text else ImageSource(error="no image: the cell is empty")
    if isinstance(cell, bytes | pa.Buffer):
        return ImageSource(data=cell)
    if isinstance(cell, Mapping):
        data, path = cell.get("bytes"), cell.get("path")
        if data is None and path is None and isinstance(cell.get("error"), str):
            return ImageSource(error=cell["error"])  # what a reader found no image in
        if isinstance(data, str):  # JSON has no bytes: a data URI stands for them
            return replace(_from_data_uri(data), path=path if isinstance(path, str) else None)
        if isinstance(data, bytes | pa.Buffer):
            return ImageSource(data=data, path=path if isinstance(path, str) else None)
        if data is not None:
            return ImageSource(error=f"no image: the cell's bytes are {type(data).__name__}")
        return from_cell(path, root)
    if cell is None or cell != cell:  # NaN, as pandas writes a missing value
        return ImageSource(error="no image: the cell is null")
    return ImageSource(error=f"no image: the cell holds {type(cell).__name__}, neither a path nor bytes")


def _from_json(text: str, root: str) -> ImageSource:
    """A struct as CSV holds it, where every cell is text."""
    try:
        return from_cell(json.loads(text), root)
    except (ValueError, RecursionError):
        return ImageSource(error="no image: broken JSON in the cell")


def _from_data_uri(uri: str) -> ImageSource:
    head, _, body = uri.partition(",")
    if not head.endswith(";base64"):
        return ImageSource(error="no image: a data URI that is not base64")
    try:
        return ImageSource(data=base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError):
        return ImageSource(error="no image: broken base64 in a data URI")


def from_part(data: pa.Buffer | None, source_ref: str | None, materialize_error: str | None, root: str) -> ImageSource:
    """Reads the image cells of an interleaved row: inline bytes, else ``source_ref``, else the reason for neither."""
    try:
        reference = _parsed_reference(source_ref) if source_ref else {}
    except ValueError as failure:
        if data is None:
            return ImageSource(error=f"no image: {failure}")
        reference = {}
    path, member, frame = reference.get("path"), reference.get("member"), reference.get("frame_index") or 0
    if data is not None:
        return ImageSource(data=data, path=path, member=member, frame=frame)
    if path:
        return ImageSource(
            path=resolve(path, root),
            member=member,
            offset=reference.get("byte_offset"),
            size=reference.get("byte_size"),
            frame=frame,
        )
    return ImageSource(error=materialize_error or "no image: no binary_content and no source_ref")


_REFERENCE = {"path": str, "member": str, "byte_offset": int, "byte_size": int, "frame_index": int}
"""The fields of a ``source_ref``; others pass."""


def _parsed_reference(source_ref: str) -> dict[str, Any]:
    """The fields of a ``source_ref`` that lead to an image. Raises ``ValueError`` in words."""
    try:
        parsed = json.loads(source_ref)
    except (ValueError, RecursionError):
        raise ValueError("source_ref is not JSON") from None
    if not isinstance(parsed, dict):
        raise ValueError("source_ref is not a JSON object")
    found: dict[str, Any] = {}
    for name, kind in _REFERENCE.items():
        value = parsed.get(name)
        if value is None:
            continue
        if kind is str and not isinstance(value, str):
            raise ValueError(f"{name} in source_ref is not text")
        if kind is int and (not isinstance(value, (int, float)) or value != value // 1 or value < 0):
            raise ValueError(f"{name} in source_ref is not a whole number from 0 on")
        found[name] = kind(value)
    return found
