"""Thumbnails and captions by ledger row: decoded once however many ask, few at a time, and held within bounds."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from clipsieve.api.pictures import Pictures
from clipsieve.core.recent import Recent
from clipsieve.core.threads import cores
from clipsieve.core.thumbnail import as_jpeg

TILE, LARGE, FULL = 320, 1600, 16_384
SIDES = (TILE, LARGE, FULL)
"""Pixels of the longest side: a tile at twice its width on the page, the dialog, and all that the decoder gives."""

HELD = 64 * 2**20
"""Bytes of JPEG in memory: some 4,000 tiles."""


@dataclass(frozen=True, kw_only=True)
class Small:
    """An image as JPEG, or why there is none, with its caption."""

    jpeg: bytes | None
    caption: str | None
    error: str | None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.jpeg or b"") + 2 * len(self.caption or "") + 500


class Thumbnails:
    """Reads images of a run in threads of its own."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self._held: Recent[Small] = Recent(HELD, lambda small: small.size)
        self._threads = ThreadPoolExecutor(cores(), thread_name_prefix="decode")

    def ask(self, row: int, side: int) -> Future[Small]:
        """The image of an image's row. A side that is not one of ``SIDES`` is no side."""
        if side not in SIDES:
            raise ValueError(f"no side {side}")
        return self._threads.submit(self._held.get, (row, side), lambda: self._make(row, side))

    def _make(self, row: int, side: int) -> Small:
        found = self.pictures.one(row, side)
        jpeg = None if found.thumbnail is None else as_jpeg(found.thumbnail)
        return Small(jpeg=jpeg, caption=found.caption, error=found.error)
