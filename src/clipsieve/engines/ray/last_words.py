"""What is said when Ray ends this process: when the head or this node is gone, its core does so without a word."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

WORDS = (
    "error: ended from outside, as Ray ends a command when the head node or Ray on this machine is gone; "
    "what is committed stays, run the same command again to go on"
)


@contextmanager
def last_words() -> Iterator[None]:
    """Until the block ends, a process beside this one waits, and says so when this one ends before."""
    waiting = 'trap "" INT TERM HUP; read -r done || echo "$0" >&2'
    with subprocess.Popen(["sh", "-c", waiting, WORDS], stdin=subprocess.PIPE) as beside:
        try:
            yield
        finally:
            beside.communicate(b"done\n")
