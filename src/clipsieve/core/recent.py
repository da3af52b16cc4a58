"""The last few results of something that takes a while, made once however many ask for it at the same time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Recent(Generic[Result]):
    """At most ``room`` results by key, the least recently asked for going first; ``size`` is what one takes of it."""

    def __init__(self, room: int, size: Callable[[Result], int] = lambda _: 1) -> None:
        self._room = room
        self._size = size
        self._held: OrderedDict[Hashable, Future[Result]] = OrderedDict()
        self._taken = 0
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """The result of ``key``; what ``make`` raises reaches all who wait for it, and is not kept."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            else:
                mine = self._held[key] = Future()
        if found is not None:
            return found.result()
        try:
            made = make()
        except BaseException as failure:
            with self._lock:
                self._held.pop(key, None)
            mine.set_exception(failure)
            raise
        mine.set_result(made)
        with self._lock:
            self._taken += self._size(made)
            self._shrink()
        return made

    def _shrink(self) -> None:
        """Lets go of the oldest that are done; the last one stays, however large."""
        for key in [key for key, held in self._held.items() if held.done()][:-1]:
            if self._taken <= self._room:
                return
            self._taken -= self._size(self._held.pop(key).result())
