"""What a run over very many images takes: a model of time and cost from per-image figures, and a simulation of it.

The model divides the work by what there is to do it with; the simulation lets shards wait for processors, encoders, the
network and each other, with durations that vary and attempts that fail. ``scale.py`` holds one against the other.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import simpy

from clipsieve.dedup import cells

MODEL_INPUT = 3 * 224 * 224
"""Bytes of what the encoder is sent of an image."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one image: processor seconds before and after the model and in dedup, bytes; an encoder's images a second."""

    prepare: float
    write: float
    encoder: float
    image_bytes: float
    ledger_bytes: float
    vector_bytes: float
    shard_images: float
    pair: float
    """Processor seconds a pair that an exact search for near duplicates compares."""
    assign: float
    """Processor seconds to compare an image with the centre of one cell, where the search is approximate."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Machines: ``cores`` and ``encoders`` (GPUs) in all, network of a machine in bytes a second."""

    cores: int
    encoders: int
    cores_a_machine: int = 64
    network: float = 25e9 / 8
    latency: float = 0.05
    """Seconds until an object store begins to answer."""
    ahead: int = 4
    """Shards that may wait for an encoder, for each of them: Ray holds reading back beyond."""
    failures: float = 0.002
    """Part of the attempts at a shard's stage that are lost with their worker."""
    kept: float = 0.5

    @property
    def machines(self) -> int:
        return math.ceil(self.cores / self.cores_a_machine)


READ_REQUESTS, WRITE_REQUESTS = 5, 5
"""Of a shard: ranges of its file, 16 MB each; output, ledger part, vectors of images and texts, one more."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Seconds that a shard takes in each stage, with nothing to wait for."""

    prepare: float
    encode: float
    write: float


def stages(costs: Costs, cluster: Cluster) -> Stages:
    """A task has its share of its machine's network; what comes to an encoder comes while it is busy with another."""
    share = cluster.network / cluster.cores_a_machine
    stored = costs.shard_images * costs.image_bytes
    arriving = costs.shard_images * MODEL_INPUT + stored
    per_encoder = cluster.network * cluster.machines / max(cluster.encoders, cluster.machines)
    kept = stored * cluster.kept + costs.shard_images * (costs.ledger_bytes + 2 * costs.vector_bytes)
    return Stages(
        prepare=costs.shard_images * costs.prepare + cluster.latency * READ_REQUESTS + stored / share,
        encode=max(costs.shard_images / costs.encoder, arriving / per_encoder),
        write=costs.shard_images * costs.write + cluster.latency * WRITE_REQUESTS + kept / share,
    )


def seconds_a_shard(costs: Costs, cluster: Cluster) -> dict[str, float]:
    """How long each kind of machine is busy with a shard, all of that kind together: the longest is the bottleneck."""
    took = stages(costs, cluster)
    again = 1 / (1 - cluster.failures)
    return {
        "processors": (took.prepare + took.write) * again / cluster.cores,
        "encoders": took.encode * again / cluster.encoders,
    }


def simulate(costs: Costs, cluster: Cluster, shards: int, seed: int = 0) -> float:
    """Seconds from the first shard to the last of ``shards``, each going through its stages in turn."""
    took = stages(costs, cluster)
    chance = random.Random(seed)
    world = simpy.Environment()
    processors = simpy.PriorityResource(world, cluster.cores)
    encoders = simpy.Resource(world, cluster.encoders)
    room = simpy.Container(world, cluster.ahead * cluster.encoders + cluster.cores, init=0)

    def spent(mean: float, spread: float) -> float:
        """A duration about ``mean``, log-normal; attempts that are lost half-way are made again."""
        lost = 0.0
        while chance.random() < cluster.failures:
            lost += mean * chance.random()
        return lost + mean * chance.lognormvariate(-(spread**2) / 2, spread)

    def shard() -> Iterator[Any]:
        yield room.put(1)
        with processors.request(priority=1) as mine:
            yield mine
            yield world.timeout(spent(took.prepare, 0.4))
        with encoders.request() as mine:
            yield mine
            yield room.get(1)
            yield world.timeout(spent(took.encode, 0.1))
        with processors.request(priority=0) as mine:  # what is done makes room: it goes first
            yield mine
            yield world.timeout(spent(took.write, 0.3))

    for _ in range(shards):
        world.process(shard())
    world.run()
    return float(world.now)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What ``images`` images take on ``cluster``."""

    images: float
    cluster: Cluster
    bottleneck: str
    hours: float
    gpu_hours: float
    core_hours: float
    dedup: str
    dedup_core_hours: float
    network: float
    """Bytes a second into and out of the object store."""
    requests: float
    """Requests a second to it."""
    shards: float
    ledger: float
    vectors: float
    driver: float
    """Bytes of memory of the process that began the run, while near duplicates are sought."""


DRIVER_BYTES = 250
"""Of an image that is compared, see docs/duplicates.md."""


def estimate(images: float, costs: Costs, cluster: Cluster) -> Estimate:
    """The model's answer."""
    busy = seconds_a_shard(costs, cluster)
    bottleneck = max(busy, key=lambda name: busy[name])
    shards = images / costs.shard_images
    scoring = busy[bottleneck] * shards
    survivors = images * cluster.kept
    exact = survivors**2 / 2 * costs.pair
    centres = cells.count(int(survivors))
    approximate = survivors * (centres * costs.assign + cells.NEAREST * survivors / centres * costs.pair)
    dedup = min(exact, approximate)
    moved = costs.image_bytes * (1 + cluster.kept) + costs.ledger_bytes + 2 * costs.vector_bytes
    hours = (scoring + dedup / cluster.cores) / 3600
    if dedup / cluster.cores > scoring:
        bottleneck = "dedup"
    return Estimate(
        images=images,
        cluster=cluster,
        bottleneck=bottleneck,
        hours=hours,
        gpu_hours=scoring / 3600 * cluster.encoders,
        core_hours=hours * cluster.cores,
        dedup="exact" if exact <= approximate else "approximate",
        dedup_core_hours=dedup / 3600,
        network=moved * images / scoring,
        requests=(READ_REQUESTS + WRITE_REQUESTS) * shards / scoring,
        shards=shards,
        ledger=images * costs.ledger_bytes,
        vectors=images * costs.vector_bytes,
        driver=survivors * DRIVER_BYTES,
    )


def balanced(costs: Costs, cluster: Cluster) -> Cluster:
    """The cluster with as many cores as keep its encoders busy, in whole machines."""
    while seconds_a_shard(costs, cluster)["processors"] > seconds_a_shard(costs, cluster)["encoders"]:
        cluster = replace(cluster, cores=cluster.cores + cluster.cores_a_machine)
    return cluster
