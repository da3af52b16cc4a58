"""Images by URL, fetched many at a time by one thread of this process, ahead of the threads that decode them.

What is announced is fetched in that order as far as requests and memory allow; what somebody waits for is fetched
whatever else there is. All that is pending lives here and nowhere else: images themselves hold no more than a URL.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from clipsieve.core.addresses import Lookup
from clipsieve.core.descriptors import exhausted, requests_allowed
from clipsieve.core.http import Http, Transfer
from clipsieve.core.turns import Turns
from clipsieve.errors import ImageError, StoreError

if TYPE_CHECKING:
    from clipsieve.core.urls import FetchPolicy

AHEAD = 256 * 2**20
"""Bytes that are fetched and not yet taken, from which on nothing is begun that nobody waits for."""

EXPECTED = 256 * 2**10
"""Bytes that an image is thought to have before any was seen."""

BEGUN = 4
"""So many images as there may be requests are begun at most: those of one host must not keep others waiting."""


INTERRUPTED = "interrupted while images were fetched; run it again"
"""What is said where images are fetched no further: a ``StoreError``, so that it never becomes the verdict of one."""


class _PutBackError(Exception):
    """Images turned out larger than expected: this one is fetched when there is room."""


@dataclass(eq=False, frozen=True)
class Announcement:
    """URLs that are to be read, each as often as it stands here; they can be let go of together, and with
    ``abandoned`` who reads one of them waits no longer."""

    urls: Sequence[str]
    abandoned: Future[None] = field(default_factory=Future)


@dataclass(eq=False)
class _Download:
    """An image on its way. Those who read it or have announced it are counted: it goes with the last of them."""

    url: str
    number: int
    """Its place among all; 0 for one that somebody waits for and nobody announced."""
    announced: deque[Announcement] = field(default_factory=deque)
    readers: int = 0
    result: Future[bytes] = field(default_factory=Future)
    task: asyncio.Task[None] | None = None
    wanted: bool = False
    held: int = 0
    gone: bool = False
    """Nobody wants it any more."""


class Downloader:
    """Fetches by a ``FetchPolicy`` in a thread of its own, until it is closed. Safe to use from several threads."""

    def __init__(self, policy: FetchPolicy, *, lookup: Lookup = socket.getaddrinfo, ahead: int = AHEAD) -> None:
        self._policy = policy
        self._lookup = lookup
        self._ahead = ahead
        self._changing = threading.Lock()
        self._downloads: dict[str, _Download] = {}
        self._numbers = count(1)
        self._closed = False
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run, args=[started], name="clipsieve-fetch", daemon=True)
        self._thread.start()
        self._loop = started.result()

    # From any thread.

    def prefetch(self, urls: Sequence[str]) -> Announcement:
        """Announces images that will be read, each as often as it is given."""
        announcement = Announcement(urls)
        with self._changing:
            if self._closed:
                return announcement
            found = []
            for url in urls:
                if url not in self._downloads:
                    self._downloads[url] = _Download(url, next(self._numbers))
                    found.append(self._downloads[url])
                self._downloads[url].announced.append(announcement)
            self._do(self._begin, found)
        return announcement

    def drop(self, announcement: Announcement) -> None:
        """Lets go of what of it nobody has read, and nobody else has announced."""
        with self._changing:
            for url in announcement.urls:
                download = self._downloads.get(url)
                if download is None or announcement not in download.announced:
                    continue
                download.announced = deque(one for one in download.announced if one is not announcement)
                if not (download.announced or download.readers):
                    self._remove(download)

    def read(self, url: str, announcement: Announcement | None = None) -> bytes:
        """The bytes at ``url``, which ``announcement`` may have announced. Raises ``ImageError``, and ``StoreError``
        where no image is to blame, also once the announcement is abandoned or all is closed."""
        with self._changing:
            if self._closed or (announcement is not None and announcement.abandoned.done()):
                raise StoreError(INTERRUPTED)
            download = self._downloads.setdefault(url, _Download(url, 0))
            if announcement is None and download.announced:
                download.announced.popleft()
            elif announcement is not None and announcement in download.announced:
                download.announced.remove(announcement)
            download.readers += 1
            if not download.result.done():
                self._do(self._want, download)
        try:
            if announcement is not None:
                ends: list[Future[Any]] = [download.result, announcement.abandoned]
                wait(ends, return_when=FIRST_COMPLETED)
                if not download.result.done():
                    raise StoreError(INTERRUPTED)
            return download.result.result()
        except (ImageError, StoreError) as failure:
            raise type(failure)(str(failure)) from None  # each reader's own
        finally:
            with self._changing:
                download.readers -= 1
                if not (download.announced or download.readers):
                    self._remove(download)

    def abandon(self, announcement: Announcement) -> None:
        """Lets go of all of it: its readers get a ``StoreError``, those of others wait on."""
        with self._changing:
            if not announcement.abandoned.done():
                announcement.abandoned.set_result(None)
        self.drop(announcement)

    def close(self) -> None:
        """Lets go of everything at once; who still waits gets a ``StoreError``."""
        with self._changing:
            if not self._closed:
                self._closed = True
                self._do(self._closing.set)
        self._thread.join()

    def interrupt(self) -> None:
        """As ``close``, without waiting for a lock or the end."""
        if not self._closed:
            self._closed = True
            self._do(self._closing.set)

    def _remove(self, download: _Download) -> None:
        if self._downloads.get(download.url) is download:
            del self._downloads[download.url]
            if not self._closed:
                self._do(self._drop, download)

    def _do(self, work: Callable[..., None], *arguments: object) -> None:
        """Has the loop's thread do it; only while it is not closed."""
        self._loop.call_soon_threadsafe(work, *arguments)

    # From the thread of the loop alone.

    def _run(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve(started))
        except BaseException as failure:
            if started.done():
                raise
            started.set_exception(failure)

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        self._waiting: deque[_Download] = deque()
        self._begun: set[_Download] = set()
        self._held = 0
        self._expected = float(EXPECTED)
        self._closing = asyncio.Event()
        at_once = requests_allowed(self._policy.concurrency)
        async with Http(self._policy, self._lookup) as self._http:
            self._turns = Turns(at_once, self._policy.per_host, self._http.look_up)
            started.set_result(asyncio.get_running_loop())
            await self._closing.wait()
            self._waiting.clear()
            tasks = [download.task for download in self._begun if download.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with self._changing:
            left = list(self._downloads.values())  # nothing is added once it is closed
        for download in left:
            self._settle(download, StoreError(INTERRUPTED))

    def _settle(self, download: _Download, outcome: bytes | Exception) -> None:
        """Gives the outcome to who waits; nobody does where another thread has let go of it meanwhile."""
        with suppress(InvalidStateError):
            if isinstance(outcome, bytes):
                download.result.set_result(outcome)
            else:
                download.result.set_exception(outcome)

    def _begin(self, found: list[_Download]) -> None:
        self._waiting.extend(found)
        self._go_on()

    def _want(self, download: _Download) -> None:
        download.wanted = True
        if download not in self._begun and not (download.result.done() or download.gone):
            self._start(download)

    def _go_on(self) -> None:
        """Begins what waits, as far as there is room."""
        while self._waiting and len(self._begun) < BEGUN * self._policy.concurrency:
            if self._held + len(self._begun) * self._expected >= self._ahead:
                return
            download = self._waiting.popleft()
            if not (download.gone or download in self._begun or download.result.done()):
                self._start(download)

    def _start(self, download: _Download) -> None:
        if self._closing.is_set():
            return
        self._begun.add(download)
        download.task = asyncio.get_running_loop().create_task(self._fetch(download))

    async def _fetch(self, download: _Download) -> None:
        def received(size: int) -> None:
            self._hold(download, download.held + size)
            if self._held > 2 * self._ahead and not download.wanted:
                raise _PutBackError

        @asynccontextmanager
        async def turn(host: str) -> AsyncIterator[None]:
            async with self._turns.of(host, download.number):
                self._hold(download, 0)  # an attempt before this one may have left a part
                yield

        try:
            data = await self._http.get(
                download.url, Transfer(turn=turn, answered=self._turns.answered, received=received)
            )
            self._expected = 0.9 * self._expected + 0.1 * len(data)
            self._settle(download, data)
        except _PutBackError:
            self._hold(download, 0)
            self._waiting.appendleft(download)
        except asyncio.CancelledError:
            self._hold(download, 0)
            self._settle(download, StoreError(INTERRUPTED))
            raise
        except Exception as failure:
            self._hold(download, 0)
            self._settle(download, _meant(failure))
        finally:
            self._begun.discard(download)
            if download.gone:
                self._hold(download, 0)
            if download.wanted and not (download.result.done() or download.gone):
                self._start(download)  # wanted just when it was put back
            self._go_on()

    def _drop(self, download: _Download) -> None:
        """Nobody wants it any more."""
        download.gone = True
        if download in self._begun and download.task is not None:
            download.task.cancel()
        self._hold(download, 0)
        self._go_on()

    def _hold(self, download: _Download, size: int) -> None:
        self._held += size - download.held
        download.held = size


def _meant(failure: Exception) -> Exception:
    """The failure as who reads an image knows it: whatever else may go wrong with one must not end a run."""
    if isinstance(failure, (ImageError, StoreError)):
        return failure
    return exhausted(failure) or ImageError(f"not fetched: {type(failure).__name__}")
