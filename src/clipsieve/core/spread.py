"""The same work on many items, wherever an engine has room for it: threads of this machine, or tasks of a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from clipsieve.core.threads import cores

T = TypeVar("T")
R = TypeVar("R")


class Spread(Protocol):
    """Does work on items, some at a time, and gives the results in the order of the items.

    ``work`` is a function of a module, or an object with a ``__call__``, that another process can be sent; it must not
    matter if it is done twice. What it raises is raised where its result would have come.
    """

    def __call__(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]: ...


def in_threads(work: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """A ``Spread`` over threads of this process: as many as it has processors, and as many items ahead again."""
    threads = threads or cores()
    with ThreadPoolExecutor(threads, "clipsieve-spread") as pool:
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()


def for_each(
    work: Callable[[T], None],
    tasks: Sequence[T],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> None:
    """Does ``work`` for each of ``tasks`` in threads; what it raises is raised here.

    ``progress`` is called with the tasks that are done and their total.
    """
    for done, _ in enumerate(in_threads(work, tasks, threads), start=1):
        if progress:
            progress(done, len(tasks))
