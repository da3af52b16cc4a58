"""A lock between processes: a local one dies with its holder, one in an object store when it is not refreshed.

In a store it is a courtesy, not what keeps a run whole: two that write the same run write equal objects.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from clipsieve.core import storage
from clipsieve.errors import StoreError

REFRESHED = 30.0
"""Seconds between two signs of life of a holder."""

STALE = 300.0
"""Seconds after the last one from which on a holder counts as dead, by clocks that may differ by minutes."""

LOOKED = 5.0
"""Seconds between two looks at a holder elsewhere that may be dead."""

SETTLED = 1.0
"""Seconds that who takes over a dead holder's lock waits, to see whether another one did at the same time."""

_HELD: set[str] = set()
"""The tokens of this process's own locks: one with its number and another token is of a dead process of that number."""


class Lock(Protocol):
    """What is held until it is closed."""

    def close(self) -> None: ...


def locked(path: Path, say: Callable[[str], None] | None = None) -> Lock:
    """The file at ``path``, made when it is not there, held by this process until it is closed.

    A holder elsewhere, of a lock in a store, may be dead without a sign: with ``say``, which is told of it, its next
    sign of life is waited for, or that it counts as dead. Raises ``BlockingIOError`` when another one holds the lock,
    with who that is where it is known; ``OSError`` when it cannot be opened, in a store ``StoreError``.
    """
    return _flocked(path) if storage.is_local(path) else LockObject(path, say)


def _flocked(path: Path) -> BinaryIO:
    lock = open(path, "ab")  # noqa: SIM115 - whoever asked for it closes it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock


class LockObject:
    """An object that says who holds the lock since when, written anew from time to time while that one lives."""

    def __init__(self, path: Path, say: Callable[[str], None] | None) -> None:
        self._path = path
        self._token = secrets.token_hex(8)
        self._closed = threading.Event()
        if not storage.create(path, self._sign()):
            holder = self._holder()
            if holder.get("token") != self._token and _alive(holder):
                self._outwait(holder, say)
            storage.put(path, self._sign())
            time.sleep(SETTLED)  # of several that found it abandoned at the same time, the last to write has it
        if self._holder().get("token") != self._token:
            raise BlockingIOError(_described(self._holder()))
        _HELD.add(self._token)
        self._thread = threading.Thread(target=self._refresh, name="clipsieve-lock", daemon=True)
        self._thread.start()

    def _outwait(self, holder: Mapping[str, Any], say: Callable[[str], None] | None) -> None:
        """Returns once ``holder`` is gone or counts as dead. Raises ``BlockingIOError`` when it is known to live."""
        if say is None or _seen(holder):
            raise BlockingIOError(_described(holder))
        longest = holder["time"] + STALE - time.time()
        say(f"{self._path.parent} is held by {_described(holder)}: waiting for its end, {longest:.0f} s at most")
        while _alive(now := self._holder()):
            if now != holder:
                raise BlockingIOError(_described(now))
            time.sleep(LOOKED)

    def close(self) -> None:
        """Lets go of the lock."""
        self._closed.set()
        self._thread.join()
        _HELD.discard(self._token)
        # A lock that cannot be removed now is taken over later.
        with suppress(StoreError, OSError):
            if self._holder().get("token") == self._token:
                storage.remove(self._path)

    def _refresh(self) -> None:
        while not self._closed.wait(REFRESHED):
            # A store that does not answer is for the work itself to meet; the next sign of life may pass.
            with suppress(StoreError, OSError):
                if self._holder().get("token") != self._token:
                    return  # taken over: whoever holds it now writes the same
                if not self._closed.is_set():
                    storage.put(self._path, self._sign())

    def _sign(self) -> bytes:
        about = {
            "host": socket.gethostname(), "machine": _machine(), "process": os.getpid(), "time": time.time(),
            "token": self._token,
        }  # fmt: skip
        return json.dumps(about).encode()

    def _holder(self) -> Mapping[str, Any]:
        """What the lock says; nothing where it is gone or not readable as one."""
        try:
            found = json.loads(storage.read(self._path))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _alive(holder: Mapping[str, Any]) -> bool:
    """Whether the holder may still be at work; one among the processes that are seen here can be asked for."""
    said, process = holder.get("time"), holder.get("process")
    if not isinstance(said, (int, float)) or time.time() - said > STALE:
        return False
    if not _seen(holder) or not isinstance(process, int):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid() or holder.get("token") in _HELD


def _seen(holder: Mapping[str, Any]) -> bool:
    """Whether the holder would be among the processes that are seen here."""
    return bool(_machine()) and holder.get("machine") == _machine()


def _machine() -> str:
    """What is the same for processes that see each other by their numbers: neither another machine of the same name,
    nor another container on this one. Empty where the system does not say.
    """
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _described(holder: Mapping[str, Any]) -> str:
    seconds = max(0.0, time.time() - holder.get("time", time.time()))
    return f"process {holder.get('process')} on {holder.get('host')}, last heard of {seconds:.0f} s ago"
