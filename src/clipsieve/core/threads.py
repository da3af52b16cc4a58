"""How many threads of our own pay off here, and a single-threaded BLAS in each.

OpenBLAS with threads of its own makes all of them wait for the slowest in every product, which on a machine that has
anything else to do took 4 to 15 times as long as one thread (1024 x 65 by 65 x 1024, two cores, one of them busy).
Blocks that know nothing of each other have no such trouble, and what is done between the products runs in parallel too.
"""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from threadpoolctl import threadpool_limits

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux tells a container how many microseconds of processor time it has in each period."""


def cores() -> int:
    """Processors that this process may use: those it is bound to, and no more than its container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or `max` in place of a number: no quota
        quota, period = map(int, QUOTA.read_text().split())
        return max(1, min(bound, math.ceil(quota / period)))
    return bound


def single_blas() -> AbstractContextManager[object]:
    """A context in which a product uses the thread that asks for it, and no other."""
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits
