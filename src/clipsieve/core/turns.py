"""Who may send a request: so many at a host, so many in all, the first announced first, none to a host that asks to be
left alone, and now and then one to a host that does not answer."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from clipsieve.core.addresses import NAMES
from clipsieve.core.http import LONGEST_PAUSE, TemporaryError
from clipsieve.errors import ImageError

ONCE_FROM = 8
"""Failures in a row of a host to answer from which on nothing is tried twice there; no fewer than its places."""

GIVEN_UP_FROM = 4
"""So many times as many, from which on images of the host fail at once."""

TRIAL = 30.0
"""Seconds after which one image of such a host is tried all the same."""


@dataclass(eq=False)
class _Silence:
    """A host that has not answered the last times."""

    failures: int = 0
    trial: float = 0.0


class Turns:
    """To be used within one event loop. ``look_up`` finds out where a host is, which takes no place in all."""

    def __init__(self, at_once: int, per_host: int, look_up: Callable[[str], Awaitable[None]]) -> None:
        self._per_host = per_host
        self._once_from = max(ONCE_FROM, per_host)
        self._all = _Places(at_once)
        self._look_up = look_up
        self._hosts: dict[str, _Places] = {}
        self._closed_until: dict[str, float] = {}
        self._closed_for_long: dict[str, tuple[float, str]] = {}
        self._silent: dict[str, _Silence] = {}
        self._clock = asyncio.get_running_loop().time

    def answered(self, host: str, failure: TemporaryError | None) -> bool:
        """Takes note of what came of a request, None for an answer of use, and says whether to try again."""
        if failure is None or not failure.silent:
            self._silent.pop(host, None)
        if failure is None:
            return False
        if 0 < failure.pause <= LONGEST_PAUSE:
            until = self._clock() + failure.pause
            self._closed_until[host] = max(self._closed_until.get(host, 0.0), until)
        elif failure.pause:
            self._closed_for_long[host] = self._clock() + failure.pause, str(failure)
            _forget_first(self._closed_for_long)
        if not failure.silent:
            return True
        silence = self._silent.setdefault(host, _Silence())
        _forget_first(self._silent)
        silence.failures += 1
        silence.trial = self._clock() + TRIAL
        return silence.failures < self._once_from

    @asynccontextmanager
    async def of(self, host: str, number: int) -> AsyncIterator[None]:
        """Waits for a turn; it lasts until the block ends. Raises ``ImageError`` at a host that is given up."""
        places = self._hosts.setdefault(host, _Places(self._per_host))
        try:
            async with places.one(number):
                self._check(host)
                while (wait := self._closed_until.get(host, 0.0) - self._clock()) > 0:
                    await asyncio.sleep(wait)
                    self._check(host)
                self._closed_until.pop(host, None)
                if host in self._silent:
                    self._silent[host].trial = self._clock() + TRIAL
                await self._look_up(host)
                async with self._all.one(number):
                    yield
        finally:
            if places.unused and self._hosts.get(host) is places:
                del self._hosts[host]

    def _check(self, host: str) -> None:
        until, reason = self._closed_for_long.get(host, (0.0, ""))
        if self._clock() < until:
            raise ImageError(reason)
        silence = self._silent.get(host)
        if silence is None or silence.failures < GIVEN_UP_FROM * self._once_from:
            return
        if self._clock() < silence.trial:
            raise ImageError("not fetched: the host does not answer")


def _forget_first(of_hosts: dict[str, Any]) -> None:
    if len(of_hosts) > NAMES:
        del of_hosts[next(iter(of_hosts))]


class _Places:
    """So many places at the same time; when one becomes free, the lowest number goes first."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._free = places
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = count()

    @property
    def unused(self) -> bool:
        """Whether nobody has a place or waits for one."""
        return self._free == self._places

    @asynccontextmanager
    async def one(self, number: int) -> AsyncIterator[None]:
        """A place, until the block ends."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._queue, (number, next(self._arrivals), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it came at the same time
                    self._give()
                raise
        try:
            yield
        finally:
            self._give()

    def _give(self) -> None:
        while self._queue:
            turn = heapq.heappop(self._queue)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
