"""Work on many items as tasks of a cluster: a ``Spread`` (``core/spread.py``) over Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from clipsieve.engines.ray.failures import end, translate_ray_errors
from clipsieve.engines.ray.objects import get_object, put_object
from clipsieve.engines.ray.worker_environment import WorkerEnvironment

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

    environment: WorkerEnvironment

    def __call__(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The results in the order of the items."""
        import ray

        task = ray.remote(num_cpus=CPUS, max_retries=TRIES, scheduling_strategy="SPREAD")(_done)
        reference = put_object(work)
        most = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
        ahead: deque[Any] = deque()
        try:
            for item in items:
                ahead.append(task.remote(self.environment, [reference], item))
                if len(ahead) >= most:
                    yield _result(ahead.popleft())
            while ahead:
                yield _result(ahead.popleft())
        finally:
            for waiting in ahead:
                end(ray.cancel, waiting)


def _done(environment: WorkerEnvironment, reference: Sequence[Any], item: Any) -> Any:
    environment.apply()
    return _work(*reference)(item)


@lru_cache(maxsize=1)
def _work(reference: Any) -> Callable[[Any], Any]:
    """What is to be done, fetched once a process."""
    work: Callable[[Any], Any] = get_object(reference)
    return work


def _result(reference: Any) -> Any:
    import ray

    with translate_ray_errors():
        return ray.get(reference)
