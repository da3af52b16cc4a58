"""Work in threads of our own, each with a single-threaded BLAS.

OpenBLAS with threads of its own makes all of them wait for the slowest in every product, which on a machine that has
anything else to do took 4 to 15 times as long as one thread (1024 x 65 by 65 x 1024, two cores, one of them busy).
Blocks that know nothing of each other have no such trouble, and what is done between the products runs in parallel too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def single_blas() -> AbstractContextManager[object]:
    """A context in which a product uses the thread that asks for it, and no other."""
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def in_threads(
    work: Callable[[T], None],
    tasks: Sequence[T],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> None:
    """Does ``work`` for each of ``tasks``, in any order; what it raises is raised here.

    ``progress`` is called with the tasks that are done and their total.
    """
    with ThreadPoolExecutor(threads or cores()) as pool:
        for done, _ in enumerate(pool.map(work, tasks), start=1):
            if progress:
                progress(done, len(tasks))
