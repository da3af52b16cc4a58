"""Images that were read before and are wanted once more, from the source again."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from clipsieve.core.decode import has_known_format
from clipsieve.core.fetch import ImageSource
from clipsieve.core.lazy import LazyBytes
from clipsieve.core.threads import cores
from clipsieve.errors import ImageError, SourceError

AHEAD = 16
"""Images whose bytes are on their way while one is written: enough to hide the latency of a remote store."""


class SourceBytes(LazyBytes):
    """Bytes of images that were read before; None for those in ``failed``, of which only what is an image is given.

    Whoever asks for one after the other is read ahead of. ``sizes`` ``(images,)`` are how many bytes they had, NaN
    where that is not known, and ``hashes`` their ``content_hash``, None where it is not: an image that is known to have
    changed since its scores were computed is not passed off as the same.
    """

    def __init__(
        self,
        sources: Sequence[ImageSource],
        failed: Collection[int],
        sizes: npt.NDArray[np.float64] | None = None,
        hashes: Sequence[str | None] | None = None,
    ) -> None:
        self._sources = sources
        self._failed = failed
        self._sizes = np.full(len(sources), np.nan) if sizes is None else sizes
        self._hashes = [None] * len(sources) if hashes is None else hashes
        self._threads = ThreadPoolExecutor(min(AHEAD, 4 * cores()), "clipsieve-reread")
        self._ahead: dict[int, Future[bytes | None]] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def read(self, index: int) -> bytes | None:
        """Raises ``SourceError`` when the image can no longer be read."""
        for place in range(index, min(index + AHEAD, len(self))):
            if place not in self._ahead:
                self._ahead[place] = self._threads.submit(self._read, place)
        for passed in [place for place in self._ahead if not index <= place < index + AHEAD]:
            self._ahead.pop(passed).cancel()
        return self._ahead.pop(index).result()

    def _read(self, index: int) -> bytes | None:
        try:
            data = self._sources[index].read()
        except ImageError as failure:
            if index in self._failed:
                return None
            raise no_longer(self._sources[index], str(failure)) from None
        size = self._sizes[index]
        if not (np.isnan(size) or len(data) == size):
            raise no_longer(self._sources[index], f"it had {size:,.0f} bytes and has {len(data):,}")
        if (known := self._hashes[index]) is not None and hashlib.sha256(data).hexdigest() != known:
            raise no_longer(self._sources[index], "its bytes are others (content_hash)")
        if has_known_format(data):
            return data
        if index in self._failed:
            return None
        raise no_longer(self._sources[index], "not an image of a known format")


def no_longer(source: ImageSource, why: str) -> SourceError:
    """An image that was scored cannot be read a second time, or is another one."""
    return SourceError(f"{source.reference or 'an image'} was read when it was scored and cannot be now: {why}")
