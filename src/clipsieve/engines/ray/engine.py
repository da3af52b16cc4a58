"""The engine that spreads shards over a cluster; what it commits is what the local engine would have committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from clipsieve.core.ledger import Counts
from clipsieve.core.spread import Spread
from clipsieve.core.timing import StageTimes
from clipsieve.engines.downloads import sharing_requests
from clipsieve.engines.ray.cluster import Cluster
from clipsieve.engines.ray.failures import ProcessesDiedError, deserialize_error
from clipsieve.engines.ray.model import ModelInfo
from clipsieve.engines.ray.objects import put_object
from clipsieve.engines.ray.pipeline import run_shards
from clipsieve.engines.ray.shard_row import ShardRow, unpickled
from clipsieve.engines.ray.steps import Job
from clipsieve.engines.usage import PREPARE, WRITE, Meter, Usage
from clipsieve.errors import SourceError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Reader, Shard
    from clipsieve.engines.commit import Committer
    from clipsieve.plan import Plan

THREADS = 4
"""Threads of a task that work on images: enough to wait for a few at a time, few enough for the cores of a node."""

ASK_S = 10
"""After how long the cluster is asked again how many CPUs it has."""


class RayEngine:
    """Scores and commits shards on a connected cluster."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        plan: Plan,
        reader: Reader,
        model: ModelInfo | None,
        committer: Committer,
        progress: Callable[[int, Counts | None], None],
    ) -> None:
        self.plan = plan
        self.reader = sharing_requests(reader, cluster.tasks)
        self.progress = progress
        self.times = StageTimes()
        self.workers_elsewhere: Spread | None = cluster.spread
        self.usage: Sequence[Usage] = ()
        self._cluster = cluster
        self._meter = Meter()
        self._most_cpus = cluster.cpus
        self._asked = time.monotonic()
        self._job = Job(
            plan=replace(plan, recipe=cluster.placed(plan.recipe)),
            reader=self.reader,
            committer=committer,
            model=model,
            environment=cluster.environment,
            threads=plan.recipe.workers or THREADS,
            sharing=cluster.sharing,
        )

    def run(self, shards: Iterable[Shard]) -> None:
        """Scores and commits ``shards``; ``progress`` hears of each commit.

        A shard whose source cannot be read, or whose processes all die, does not keep the others from being done.
        Raises that for the first such shard then, and any other failure at once.
        """
        failed: dict[int, SourceError | ProcessesDiedError] = {}
        with closing(self._rows(list(shards))) as rows:  # what fails ends the others
            for row in rows:
                stamps = unpickled(row, "stamps")
                for stamp in stamps:
                    self.times.add(stamp.seconds)
                if "failure" in row:
                    failure = deserialize_error(*unpickled(row, "failure"))
                    if not isinstance(failure, (SourceError, ProcessesDiedError)):
                        raise failure
                    failed[unpickled(row, "shard").number] = failure
                    continue
                counts: Counts = unpickled(row, "counts")
                self._meter.add(stamps, counts.images.total)
                self._look_for_cpus()
                self.times.images += counts.images.total
                self.progress(counts.images.total, counts)
        self.usage = self._meter.usage({PREPARE: self._most_cpus, WRITE: self._most_cpus})
        if failed:
            first = failed[min(failed)]
            others = f" (and {len(failed) - 1:,} more shards failed)" if len(failed) > 1 else ""
            raise type(first)(f"{first}{others}; the other shards are done") from first

    def _look_for_cpus(self) -> None:
        """Counts the CPUs of nodes that have joined, now and then."""
        now = time.monotonic()
        if now - self._asked >= ASK_S:
            self._asked = now
            self._most_cpus = max(self._most_cpus, self._cluster.cpus_now())

    def _rows(self, shards: Sequence[Shard]) -> Generator[ShardRow, None, None]:
        if shards:
            yield from run_shards(self._cluster, put_object(self._job), shards, encodes=self.plan.needs_encoder)
