"""The operators and how they are joined: shards in, and for each a row of a few numbers out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from clipsieve.core.contracts import Shard
from clipsieve.engines.ray.cluster import Cluster
from clipsieve.engines.ray.failures import end, translate_ray_errors
from clipsieve.engines.ray.shard_row import ShardRow, unpacked
from clipsieve.engines.ray.spread import CPUS, TRIES
from clipsieve.engines.ray.steps import Encode, prepare, request, score_and_write, write

WAVE = 100_000
"""Shards that are handed to the cluster at once.

Each takes 8 kB and a millisecond of the driver before the first is begun; between two waves the cluster stands still
and encoders load their weights again.
"""

IDLE_S = 24 * 60 * 60
"""How long no shard may move on before the run ends: longer than any takes, and than a cluster waits for a node."""

ON_HEAD = {"node:__internal_head__": 0.001}
"""What only the head node has: with it the cluster goes anyway, while other nodes come and go."""


def run_shards(cluster: Cluster, job: Any, shards: Sequence[Shard], *, encodes: bool) -> Iterator[ShardRow]:
    """The rows of ``shards`` as they are done, in any order; ``job`` refers to a ``Job``."""
    if cluster.by_client:
        return _by_driver_actor(cluster, job, shards, encodes=encodes)
    return _in_waves(cluster, job, shards, encodes=encodes)


class _Driver:
    """Drives the operators from within the cluster, for a process that Ray's client connects: Ray Data cannot."""

    def __init__(self) -> None:
        self._rows: SimpleQueue[ShardRow] = SimpleQueue()

    def drive(self, cluster: Cluster, job: Sequence[Any], shards: Sequence[Shard], encodes: bool) -> None:
        """Does ``shards``."""
        for row in _in_waves(cluster, job[0], shards, encodes=encodes):
            self._rows.put(row)

    def rows(self) -> list[ShardRow]:
        """Those that have come since this was asked last; waits a little for the first."""
        found = []
        with suppress(Empty):
            found.append(self._rows.get(timeout=1))
            while True:
                found.append(self._rows.get_nowait())
        return found


def _by_driver_actor(cluster: Cluster, job: Any, shards: Sequence[Shard], *, encodes: bool) -> Iterator[ShardRow]:
    import ray

    with translate_ray_errors():
        driver = ray.remote(num_cpus=0, max_concurrency=2, resources=ON_HEAD)(_Driver).remote()
        try:
            # In a list, a reference arrives as one.
            driving = driver.drive.remote(cluster, [job], shards, encodes)
            running = True
            while running:
                running = not ray.wait([driving], timeout=0)[0]
                yield from ray.get(driver.rows.remote())
            ray.get(driving)
        finally:
            end(ray.kill, driver)


def _in_waves(cluster: Cluster, job: Any, shards: Sequence[Shard], *, encodes: bool) -> Iterator[ShardRow]:
    for start in range(0, len(shards), WAVE):
        with translate_ray_errors(), _configured():
            for table in _dataset(cluster, job, shards[start : start + WAVE], encodes=encodes).iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                yield from unpacked(table)


def _dataset(cluster: Cluster, job: Any, shards: Sequence[Shard], *, encodes: bool) -> Any:
    from ray.data import ActorPoolStrategy, from_blocks

    # A block is a shard, which is one row; that batches are single rows must be said where there are GPUs.
    rows: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    dataset = from_blocks([request(shard) for shard in shards])  # from_arrow would start a task for each
    if not encodes:
        return dataset.map_batches(partial(score_and_write, job, TRIES), num_cpus=CPUS, **rows)
    fewest, most = cluster.encoders
    return (
        dataset.map_batches(partial(prepare, job, TRIES), num_cpus=CPUS, **rows)
        .map_batches(
            Encode,
            fn_constructor_args=(job, TRIES),
            compute=ActorPoolStrategy(min_size=fewest, max_size=most),
            num_cpus=cluster.encoder_cpus,
            num_gpus=cluster.gpus or None,
            **rows,
        )
        .map_batches(partial(write, job, TRIES), num_cpus=CPUS, **rows)
    )


@contextmanager
def _configured() -> Iterator[None]:
    """Ray Data without its own bars and lines, for there is a progress of ours, and as patient as a run needs it."""
    from ray.data import DataContext

    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="ray.data")
            context = DataContext.get_current().copy()
            context.enable_progress_bars = False
            context.execution_no_progress_timeout_s = IDLE_S
            context.print_on_execution_start = False
            context.max_consecutive_actor_init_deaths = TRIES  # of those that Ray's core does not start again
            with DataContext.current(context):
                yield
    finally:
        log.setLevel(level)
