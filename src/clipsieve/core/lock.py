"""A lock between processes that dies with its holder."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO


def locked(path: Path) -> BinaryIO:
    """The file at ``path``, made when it is not there, held by this process until it is closed.

    Raises ``BlockingIOError`` when another one holds it, ``OSError`` when it cannot be opened.
    """
    lock = open(path, "ab")  # noqa: SIM115 - whoever asked for it closes it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock
