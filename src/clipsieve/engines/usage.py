"""How busy the parts of an engine were, and what to add to go faster: a line for each operator."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

PREPARE, ENCODE, WRITE = "prepare", "encode", "write"

BUSY = 0.85
"""From this share of its time on an operator counts as the one that the others wait for."""


SHORT_S = 10.0
"""A shorter run says nothing of a longer one: starting takes most of it."""

TINY_S = 0.2
"""A shard that takes less than this to be prepared and written is mostly the cluster's own work."""

FEW = 4
"""With fewer shards for each worker than this, those at the beginning and the end decide how busy they are."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """When and where an operator worked on a shard: by the clock, in seconds; and its time by stage."""

    operator: str
    began: float
    ended: float
    process: tuple[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What an operator has done: ``shards`` with ``images`` in ``busy`` seconds, summed over its workers.

    A shard has waited ``waited`` seconds for it on average, after the operator before; None for the first.
    ``used`` is the share of the time in which all ``workers`` could have worked that they did.
    """

    operator: str
    shards: int
    busy: float
    waited: float | None
    workers: int
    used: float
    images: int = 0

    @property
    def seconds(self) -> float:
        """How long all of it took, by the clock; 0 where it was never busy."""
        return self.busy / (self.workers * self.used) if self.workers * self.used else 0.0


class Meter:
    """Adds up the stamps of shards as they are done."""

    def __init__(self) -> None:
        self._shards: Counter[str] = Counter()
        self._images: Counter[str] = Counter()
        self._waits: Counter[str] = Counter()
        self._lives: dict[str, dict[tuple[str, int], tuple[float, float]]] = defaultdict(dict)
        self._busy: dict[str, float] = defaultdict(float)
        self._waited: dict[str, float] = defaultdict(float)
        self._began = math.inf
        self._ended = -math.inf

    def add(self, stamps: Sequence[Stamp], images: int) -> None:
        """Counts those of a shard with so many images, in the order of the operators."""
        for stamp in stamps:
            self._shards[stamp.operator] += 1
            self._images[stamp.operator] += images
            lives = self._lives[stamp.operator]
            first, last = lives.get(stamp.process, (stamp.began, stamp.ended))
            lives[stamp.process] = (min(first, stamp.began), max(last, stamp.ended))
            self._busy[stamp.operator] += stamp.ended - stamp.began
            self._began = min(self._began, stamp.began)
            self._ended = max(self._ended, stamp.ended)
        for before, after in pairwise(stamps):
            self._waits[after.operator] += 1
            # Clocks of two nodes may differ by more than a shard waits.
            self._waited[after.operator] += max(0.0, after.began - before.ended)

    def usage(self, workers: Mapping[str, int]) -> list[Usage]:
        """That of each operator, of which there were so many ``workers``, else the most processes that were at work at
        a time, from the first shard's begin to the last's end."""
        wall = self._ended - self._began
        at_work = {name: workers.get(name) or _most_at_a_time(lives.values()) for name, lives in self._lives.items()}
        return [
            Usage(
                operator=name,
                shards=shards,
                images=self._images[name],
                busy=round(self._busy[name], 3),
                waited=round(self._waited[name] / self._waits[name], 3) if self._waits[name] else None,
                workers=at_work[name],
                used=round(min(1.0, self._busy[name] / max(wall * at_work[name], 1e-9)), 4),
            )
            for name, shards in self._shards.items()
        ]


def _most_at_a_time(lives: Iterable[tuple[float, float]]) -> int:
    """How many at most had begun and not ended: one that died and the one in its place count once."""
    changes = sorted(change for began, ended in lives for change in ((began, 0, 1), (ended, 1, -1)))
    return max(accumulate(change for _, _, change in changes))


def advice(found: Sequence[Usage]) -> str:
    """What to add to go faster, in one line; nothing where too little was done to tell."""
    shards = max(one.shards for one in found)
    if shards == 1 or max(one.seconds for one in found) < SHORT_S:
        return ""
    used = {one.operator: one.used for one in found}
    workers = {one.operator: one.workers for one in found}
    cpus = used.get(PREPARE, 0.0) + used.get(WRITE, 0.0)
    encoders = used.get(ENCODE)
    if encoders is not None and encoders >= BUSY:
        return f"the encoders are busy {encoders:.0%} of the time: add encoders (GPUs) to go faster"
    if cpus >= BUSY:
        idle = "" if encoders is None else f", the encoders wait {1 - encoders:.0%} of it"
        return f"the CPUs are busy {min(cpus, 1.0):.0%} of the time{idle}: add CPU nodes to go faster"
    places = workers.get(PREPARE, 1)
    if shards < FEW * places:
        return (
            f"{shards:,} shards are few for {places:,} CPU{'s' * (places > 1)}: smaller ones "
            "(read: {shard_rows: ...}, in a new run folder) keep more of them busy"
        )
    if sum(one.busy for one in found if one.operator != ENCODE) < TINY_S * shards:
        return (
            "shards are so small that the cluster's own work takes most of the time: larger ones "
            "(read: {shard_rows: ..., shard_bytes: ...}, in a new run folder) spare it"
        )
    idle = "the CPUs are not" if encoders is None else "neither the encoders nor the CPUs are"
    return f"{idle} busy all the time: they wait for storage; raise --workers"
