"""Open files and connections, of which a process may have so many: as many as there can be, and whose fault it is when
there are no more, or no memory or threads."""

from __future__ import annotations

import errno
import resource
import socket

from clipsieve.errors import StoreError

OTHERS = 128
"""Files that a process needs for other things than connections."""

PER_REQUEST = 2
"""Connections for a request at a time: the one in use, and one that waits for the next image of its host."""


def requests_allowed(wanted: int) -> int:
    """How many requests at a time there are files for, ``wanted`` at most; the soft limit is raised as needed."""
    needed = OTHERS + PER_REQUEST * wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(1, min(wanted, (most - OTHERS) // PER_REQUEST))


_NO_MEMORY = (errno.ENOBUFS, errno.ENOMEM, socket.EAI_MEMORY)


def exhausted(failure: BaseException) -> StoreError | None:
    """The error that ends a run, where this machine has no files, memory or threads left."""
    no_memory = isinstance(failure, MemoryError) or (isinstance(failure, OSError) and failure.errno in _NO_MEMORY)
    if no_memory or (isinstance(failure, RuntimeError) and "start new thread" in str(failure)):
        return StoreError("no memory or threads left for requests; lower fetch.concurrency, then run it again")
    return out_of_files(failure)


def out_of_files(failure: BaseException) -> StoreError | None:
    """The error that ends a run, where a failure is this machine's: no image is to blame for it."""
    if isinstance(failure, OSError) and failure.errno in (errno.EMFILE, errno.ENFILE):
        return StoreError(
            "too many open files; raise the limit (ulimit -n) or lower fetch.concurrency, then run it again"
        )
    return None
