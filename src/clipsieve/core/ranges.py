"""Remote files read by ranges of bytes: as few and as large requests as fit, several at a time, each tried again when
it fails or comes short. A file that is read from front to back is fetched a block ahead.
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, cast

import fsspec

from clipsieve.core.retry import ShortReadError, passes, retrying, status, unusable
from clipsieve.core.spread import in_threads
from clipsieve.errors import StoreError

BLOCK = 8 * 2**20
"""Bytes of one request where a file is streamed: at 100 MB/s the bytes then take longer than the answer to begin."""

PART = 16 * 2**20
"""Bytes of one request where a longer range is wanted; one connection alone does not fill a network."""

AT_ONCE = 8
"""Such requests in flight."""

WHOLE = 2**20
"""A small file, of up to so many bytes, comes whole in one request that does not ask for its size first."""

_PACKAGES = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""The extra with which the filesystem of a protocol is installed."""

# These log each failure with its traceback, also those that are tried again; it is seen where a program set up logging.
for _name in ("adlfs", "azure", "gcsfs"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


def protocol(url: str) -> str | None:
    """What stands before ``://``; None for a path of this machine, in whatever form."""
    head, found, _ = url.partition("://")
    return head.lower() if found and head.lower() not in ("file", "local") else None


def is_remote(url: str) -> bool:
    """Whether it is read by ranges: anything that is neither local nor inside another file (``zip://a::b``)."""
    return "://" in url and "::" not in url and protocol(url) is not None


def filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL, with the options of its protocol, and the path in it. Raises ``StoreError``."""
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    except ImportError as failure:
        extra = _PACKAGES.get(protocol(url) or "")
        remedy = f"pip install 'clipsieve[{extra}]'" if extra else str(failure)
        raise StoreError(f"{protocol(url)}:// needs a package that is not installed: {remedy}") from None
    except Exception as failure:  # each store has its own
        if protocol(url) not in _PACKAGES and not isinstance(failure, TypeError):
            raise
        raise unusable(url, failure) from None


def bucket(url: str) -> str:
    """What the first steps of a URL name in its store, to be said to a person: ``bucket NAME``."""
    steps = url.partition("://")[2].strip("/").split("/")
    if protocol(url) != "hf":
        return f"bucket {steps[0]}"
    return f"repository {'/'.join(steps[: 3 if steps[0] in ('datasets', 'spaces', 'buckets', 'models') else 2])}"


def read_whole(url: str, limit: int) -> bytes:
    """The bytes of a file, the first ``limit`` of a longer one; in one request."""
    return read_range(url, 0, limit)


def read_range(url: str, start: int, stop: int) -> bytes:
    """The bytes ``[start, stop)`` of a file, fewer where it ends before; one request."""
    files, name = filesystem(url)

    def work() -> bytes:
        try:
            return bytes(files.cat_file(name, start=start, end=stop))
        except Exception as failure:  # each store has its own
            if isinstance(failure, (FileNotFoundError, PermissionError)) or passes(failure):
                raise
            if not isinstance(failure, OSError) and status(failure) != 416:
                raise
            if start < files.info(name)["size"]:
                raise
            return b""  # nothing begins there, which stores call an error

    return retrying(url, work)


def open_remote(url: str) -> BinaryIO:
    """A seekable file, for whoever reads it by large pieces in any order: no byte is fetched that is not asked for."""
    size = _size(url)
    return _copied(url) if size is None else cast(BinaryIO, RemoteFile(url, size))


def open_stream(url: str) -> BinaryIO:
    """A seekable file for whoever reads it from front to back, by pieces of any size."""
    size = _size(url)
    return _copied(url) if size is None else cast(BinaryIO, io.BufferedReader(Stream(url, size), buffer_size=2**18))


def _size(url: str) -> int | None:
    """The bytes of a file; None where its server does not say, or gives no parts."""
    files, name = filesystem(url)
    about = retrying(url, lambda: files.info(name))
    size = about.get("size")
    if size and is_http(url) and len(read_range(url, 0, 1)) > 1:
        return None  # only by trying does one know a server that gives the whole whatever part is asked for
    return None if size is None else int(size)


def open_small(url: str) -> BinaryIO:
    """A seekable file that is probably small enough to come whole."""
    data = read_whole(url, WHOLE)
    return io.BytesIO(data) if len(data) < WHOLE else open_remote(url)


def _copied(url: str) -> BinaryIO:
    """The whole of a file whose server knows no ranges, in an unnamed temporary file."""
    files, name = filesystem(url)

    def work() -> BinaryIO:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asked for it closes it
        with files.open(name, "rb") as file:
            shutil.copyfileobj(file, copy, BLOCK)
        copy.seek(0)
        return cast(BinaryIO, copy)

    return retrying(url, work)


class RemoteFile(io.RawIOBase):
    """A file of a known size in a store, read by ranges."""

    def __init__(self, url: str, size: int) -> None:
        self.url = url
        self.size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self._position + size, self.size)
        data = self.fetch(self._position, stop)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def fetch(self, start: int, stop: int) -> bytes:
        """The bytes ``[start, stop)``, a long range by several requests at a time."""
        if start >= stop:
            return b""
        ranges = [(at, min(at + PART, stop)) for at in range(start, stop, PART)]
        if len(ranges) == 1:
            return self._fetch(ranges[0])
        return b"".join(in_threads(self._fetch, ranges, AT_ONCE))

    def _fetch(self, between: tuple[int, int]) -> bytes:
        files, name = filesystem(self.url)
        return retrying(self.url, partial(_whole_range, files, name, *between))


def _whole_range(files: Any, name: str, start: int, stop: int) -> bytes:
    data = bytes(files.cat_file(name, start=start, end=stop))
    if len(data) < stop - start:
        raise ShortReadError(f"{len(data):,} of {stop - start:,} bytes came")
    return data


class Stream(RemoteFile):
    """A file read from front to back by blocks, the next one on its way meanwhile; a block stays until the next."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__(url, size)
        self._start, self._block = 0, b""
        self._next: tuple[int, Future[bytes]] | None = None
        self._thread = ThreadPoolExecutor(1, "clipsieve-ahead")

    def read(self, size: int | None = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self._position + size, self.size)
        if stop - self._position > BLOCK:
            return super().read(size)
        return b"".join(self._pieces(stop))

    def _pieces(self, stop: int) -> Iterator[bytes]:
        while self._position < stop:
            if not self._start <= self._position < self._start + len(self._block):
                self._load()
            at = self._position - self._start
            piece = self._block[at : at + stop - self._position]
            self._position += len(piece)
            yield piece

    def _load(self) -> None:
        """The block that begins here; when it follows the last one, the next is asked for, too."""
        start, ahead = self._position, self._next
        follows = start > 0 and start == self._start + len(self._block)
        self._next = None
        block = ahead[1].result() if ahead and ahead[0] == start else self.fetch(start, self._end(start))
        self._start, self._block = start, block
        if follows and (behind := start + len(block)) < self.size:
            self._next = behind, self._thread.submit(self.fetch, behind, self._end(behind))

    def _end(self, start: int) -> int:
        return min(start + BLOCK, self.size)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        super().close()


def is_http(url: str) -> bool:
    """Whether a web server gives it, which has no listings worth the name."""
    return protocol(url) in ("http", "https")
