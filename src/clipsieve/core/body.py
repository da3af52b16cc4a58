"""The body of an answer as it comes: decompressed where need be, and never more of it than the limit."""

from __future__ import annotations

import zlib
from typing import Any

from clipsieve.errors import ImageError

PARTS = 1000
"""Parts that a compressed image may have; each costs time, however small."""

_GZIP = b"\x1f\x8b"


class Body:
    """What has come of a body, decompressed where the server has compressed it unasked, and never over the limit."""

    def __init__(self, encoding: str, limit: int) -> None:
        kind = encoding.strip().lower()
        if kind not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise ImageError("not fetched: the server compressed it in a way that was not asked for")
        self._compressed = kind not in ("identity", "")
        self._inflating: Any = None
        self._ended = b""
        self._parts = 0
        self._limit = limit
        self._data = bytearray()
        self._wire = 0

    def take(self, chunk: bytes) -> int:
        """Adds a piece as it came and says by how many bytes the body has grown."""
        before = len(self._data)
        self._wire += len(chunk)
        if self._compressed:
            self._inflate(chunk)
        else:
            self._data += chunk
        if max(len(self._data), self._wire) > self._limit:
            raise too_large(self._limit)
        return len(self._data) - before

    def _inflate(self, chunk: bytes) -> None:
        """Adds what a piece holds; a second part of a gzip goes on where the first has ended, what else follows is
        ignored, as browsers do."""
        while chunk and len(self._data) <= self._limit:
            if self._inflating is None:
                # Some servers send deflate as the bare stream that it is called after.
                headed = chunk[0] == 0x1F or chunk[0] & 0x0F == 8
                self._inflating = zlib.decompressobj(zlib.MAX_WBITS | 32 if headed else -zlib.MAX_WBITS)
            if not self._inflating.eof:
                try:
                    self._data += self._inflating.decompress(chunk, self._limit + 1 - len(self._data))
                except zlib.error:
                    raise ImageError("not fetched: broken compression") from None
                chunk = self._inflating.unused_data
            self._ended += chunk
            if not self._ended.startswith(_GZIP):
                self._ended = self._ended[: len(_GZIP)]
                return
            chunk, self._ended, self._inflating = self._ended, b"", None
            self._parts += 1
            if self._parts == PARTS:
                raise ImageError("not fetched: broken compression")

    @property
    def complete(self) -> bool:
        """Whether what was compressed has come to its end."""
        return self._inflating is None or self._inflating.eof

    def whole(self) -> bytes:
        """All of it."""
        return bytes(self._data)


def too_large(limit: int) -> ImageError:
    """What is said of an image that has more bytes than the limit."""
    return ImageError(f"too large: more than {limit:,} bytes")
