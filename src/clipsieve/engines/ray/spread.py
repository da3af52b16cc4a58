"""Work on many items as tasks of a cluster: a ``Spread`` (``core/spread.py``) over Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from clipsieve.engines.ray.failures import told
from clipsieve.engines.ray.place import Place, received, sent

T = TypeVar("T")
R = TypeVar("R")

CPUS = 0.9
"""What a task reserves of a CPU: all but a little, so that an encoder without a GPU finds room beside it."""

TRIES = 10
"""How often a task is begun anew when its process or node is lost."""


@dataclass(frozen=True, kw_only=True)
class InTasks:
    """A ``Spread`` over the nodes of the connected cluster, two items in flight for each of its CPUs.

    A task whose process or node dies is begun anew; an error of the work itself is not tried again.
    """

    place: Place

    def __call__(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The results in the order of the items."""
        import ray

        task = ray.remote(num_cpus=CPUS, max_retries=TRIES, scheduling_strategy="SPREAD")(_done)
        reference = sent(work)
        most = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
        ahead: deque[Any] = deque()
        try:
            for item in items:
                ahead.append(task.remote(self.place, [reference], item))
                if len(ahead) >= most:
                    yield _result(ahead.popleft())
            while ahead:
                yield _result(ahead.popleft())
        finally:
            for waiting in ahead:
                ray.cancel(waiting)


def _done(place: Place, reference: Sequence[Any], item: Any) -> Any:
    place.enter()
    return _work(*reference)(item)


@lru_cache(maxsize=1)
def _work(reference: Any) -> Callable[[Any], Any]:
    """What is to be done, received once a process."""
    work: Callable[[Any], Any] = received(reference)
    return work


def _result(reference: Any) -> Any:
    import ray

    with told():
        return ray.get(reference)
