"""The engine that spreads shards over a cluster; what it commits is what the local engine would have committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from clipsieve.core.ledger import Counts
from clipsieve.core.spread import Spread
from clipsieve.core.timing import StageTimes
from clipsieve.engines.ray.cluster import Cluster
from clipsieve.engines.ray.failures import arrived
from clipsieve.engines.ray.model import Model
from clipsieve.engines.ray.parcel import Parcel, loaded
from clipsieve.engines.ray.pipeline import done
from clipsieve.engines.ray.place import sent
from clipsieve.engines.ray.steps import Job
from clipsieve.engines.usage import PREPARE, WRITE, Meter, Usage
from clipsieve.errors import SourceError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Reader, Shard
    from clipsieve.engines.commit import Committer
    from clipsieve.plan import Plan

THREADS = 4
"""Threads of a task that work on images: enough to wait for a few at a time, few enough for the cores of a node."""


class RayEngine:
    """Scores and commits shards on a connected cluster."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        plan: Plan,
        reader: Reader,
        model: Model | None,
        committer: Committer,
        progress: Callable[[int, Counts | None], None],
    ) -> None:
        self.plan = plan
        self.reader = reader
        self.progress = progress
        self.times = StageTimes()
        self.workers_elsewhere: Spread | None = cluster.spread
        self.usage: Sequence[Usage] = ()
        self._cluster = cluster
        self._meter = Meter()
        self._job = Job(
            plan=plan,
            reader=reader,
            committer=committer,
            model=model,
            place=cluster.place,
            threads=plan.recipe.workers or THREADS,
            sharing=cluster.sharing,
        )

    def run(self, shards: Iterable[Shard]) -> None:
        """Scores and commits ``shards``; ``progress`` hears of each commit.

        A shard whose source cannot be read does not keep the others from being done. Raises ``SourceError`` for the
        first such shard then, and any other failure at once.
        """
        unread: dict[int, SourceError] = {}
        for parcel in self._done(list(shards)):
            stamps = loaded(parcel, "stamps")
            for stamp in stamps:
                self.times.add(stamp.seconds)
            if "failure" in parcel:
                failure = arrived(*loaded(parcel, "failure"))
                if not isinstance(failure, SourceError):
                    raise failure
                unread[loaded(parcel, "shard").number] = failure
                continue
            counts: Counts = loaded(parcel, "counts")
            self._meter.add(stamps, counts.images.total)
            self.times.images += counts.images.total
            self.progress(counts.images.total, counts)
        self.usage = self._meter.usage({PREPARE: self._cluster.cpus, WRITE: self._cluster.cpus})
        if unread:
            others = f" (and {len(unread) - 1:,} more shards could not be read)" if len(unread) > 1 else ""
            raise SourceError(f"{unread[min(unread)]}{others}; the other shards are done")

    def _done(self, shards: Sequence[Shard]) -> Iterator[Parcel]:
        if not shards:
            return iter(())
        return done(self._cluster, sent(self._job), shards, encodes=self.plan.needs_encoder)
