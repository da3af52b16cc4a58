"""Images in object stores, asked for ahead of the threads that decode them: a store takes its time for each, and gives
many at a time, so that far more are on their way than this machine has processors.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from clipsieve.core.fetch import ImageSource
from clipsieve.core.ranges import is_http, is_remote
from clipsieve.core.storage import REQUESTS

if TYPE_CHECKING:
    from clipsieve.core.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class ComingImage(ImageSource):
    """An image whose bytes were asked for; whoever reads it first gets those, and they are not held any longer."""

    coming: list[Future[bytes]]

    def read(self) -> bytes:
        return self.coming.pop().result() if self.coming else ImageSource.read(self)


class Prefetch:
    """Asks for the images of batches in the order in which these are handed over."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(REQUESTS, "clipsieve-prefetch")

    def begin(self, batch: Batch) -> None:
        """Asks for all images of ``batch`` that are in a store; their bytes are in memory until they are read."""
        if any(_in_store(source) for source in batch.parts.images):
            batch.parts = replace(batch.parts, images=[self._asked(source) for source in batch.parts.images])

    def _asked(self, source: ImageSource) -> ImageSource:
        if not _in_store(source):
            return source
        known = {field.name: getattr(source, field.name) for field in fields(source)}
        return ComingImage(**known, coming=[self._threads.submit(source.read)])

    def stop(self) -> None:
        """Lets what was not begun go unread."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _in_store(source: ImageSource) -> bool:
    path = source.path
    return path is not None and source.data is None and source.error is None and is_remote(path) and not is_http(path)
