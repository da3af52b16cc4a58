"""Images in object stores, asked for ahead of the threads that decode them: a store takes its time for each, and gives
many at a time, so that far more are on their way than this machine has processors.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clipsieve.core.fetch import ImageSource, as_kind
from clipsieve.core.ranges import is_http, is_remote
from clipsieve.core.storage import REQUESTS

if TYPE_CHECKING:
    from clipsieve.core.batch import Batch

ROOM = 256 * 2**20
"""Bytes that may have come and wait to be read before no further image is asked for."""


class Request:
    """An image that is to be read ahead; ``answer`` is None until a thread has it."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.answer: Future[bytes] | None = None
        self.withdrawn = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ComingImage(ImageSource):
    """An image whose bytes were asked for; whoever reads it first gets those, and they are not held any longer."""

    prefetch: Prefetch
    request: list[Request]

    def read(self) -> bytes:
        return self.prefetch.take(self.request.pop()) if self.request else ImageSource.read(self)


class Prefetch:
    """Asks for the images of batches in the order in which these are handed over, as far as there is room."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(REQUESTS, "clipsieve-prefetch")
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._in_flight = 0
        self._held = 0

    def begin(self, batch: Batch) -> None:
        """Asks for all images of ``batch`` that are in a store; their bytes are in memory until they are read."""
        coming = [
            as_kind(source, ComingImage, prefetch=self, request=[Request(source)]) if _in_store(source) else source
            for source in batch.parts.images
        ]
        batch.parts = replace(batch.parts, images=coming)
        with self._lock:
            self._waiting.extend(one.request[0] for one in coming if isinstance(one, ComingImage))
            self._ask()

    def take(self, request: Request) -> bytes:
        """The bytes of an image; one not asked for yet is read at once, so that nobody waits for room."""
        with self._lock:
            request.withdrawn = request.answer is None
        if request.answer is None:
            return request.source.read()
        data = request.answer.result()
        with self._lock:
            self._held -= len(data)
            self._ask()
        return data

    def stop(self) -> None:
        """Lets what was not begun go unread."""
        with self._lock:
            self._waiting.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self) -> None:
        """Sends what waits on its way, while there is room; for who holds the lock."""
        while self._waiting and self._in_flight < REQUESTS and self._held < ROOM:
            request = self._waiting.popleft()
            if not request.withdrawn:
                self._in_flight += 1
                request.answer = self._threads.submit(self._read, request.source)

    def _read(self, source: ImageSource) -> bytes:
        data = b""
        try:
            data = source.read()
            return data
        finally:
            with self._lock:
                self._in_flight -= 1
                self._held += len(data)
                self._ask()


def _in_store(source: ImageSource) -> bool:
    path = source.path
    return path is not None and source.data is None and source.error is None and is_remote(path) and not is_http(path)
