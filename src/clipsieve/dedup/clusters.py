"""Clusters of vectors, each with the vectors that come near it from outside: near ones nearly always meet in one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipsieve.dedup.result import Numbers
from clipsieve.dedup.threads import in_threads
from clipsieve.dedup.vectors import ROWS, Floats

SIZE = 512
"""Members of a cluster on average."""

SAMPLE = 32
"""Points a cluster that the centres are made from."""

ROUNDS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """The points that are nearest to a centre, and those for which it is one of the nearest few; both ascend."""

    members: Numbers
    visitors: Numbers


def clusters(points: Floats, nearest: int = 1) -> list[Cluster]:
    """Each of ``points`` ``(n, dim)`` is a member of one cluster, and visits as many as make ``nearest`` with it."""
    centres = _centres(points, max(len(points) // SIZE, 1))
    nearest = min(nearest, len(centres))
    mine = _nearest(points, centres, nearest)
    order = np.argsort(mine, axis=None, kind="stable")
    ends = np.cumsum(np.bincount(mine.ravel(), minlength=len(centres)))[:-1]
    return [
        Cluster(members=places[places % nearest == 0] // nearest, visitors=places[places % nearest > 0] // nearest)
        for places in np.split(order, ends)
    ]


def _centres(points: Floats, count: int) -> Floats:
    """Directions of means of a sample, by a few rounds of spherical k-means from an arbitrary but fixed start."""
    random = np.random.default_rng(0)
    sample = points[np.sort(random.choice(len(points), min(SAMPLE * count, len(points)), replace=False))]
    centres = _directions(sample[random.choice(len(sample), count, replace=False)])
    for _ in range(ROUNDS):
        mine = _nearest(sample, centres, 1)[:, 0]
        order = np.argsort(mine, kind="stable")
        begins = np.flatnonzero(np.diff(mine[order], prepend=-1))
        # A centre without points stays where it is.
        centres[mine[order[begins]]] = _directions(np.add.reduceat(sample[order], begins))
    return centres


def _nearest(points: Floats, centres: Floats, count: int) -> Numbers:
    """The ``count`` centres that each point is nearest to, ``(points, count)``, the nearest of all first."""
    found = np.empty((len(points), count), dtype=np.int64)

    def find(start: int) -> None:
        cosines = points[start : start + ROWS] @ centres.T
        first = cosines.argmax(axis=1)
        found[start : start + ROWS, 0] = first
        if count > 1:
            cosines[np.arange(len(first)), first] = -np.inf
            found[start : start + ROWS, 1:] = np.argpartition(cosines, 1 - count, axis=1)[:, 1 - count :]

    in_threads(find, range(0, len(points), ROWS))
    return found


def _directions(points: Floats) -> Floats:
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    directions: Floats = np.divide(points, np.maximum(lengths, 1e-30), dtype=np.float32)
    return directions
