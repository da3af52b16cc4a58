"""Clusters of vectors, each with the vectors that come near it from outside: near ones nearly always meet in one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.core.spread import for_each
from clipsieve.dedup.result import Numbers
from clipsieve.dedup.vectors import ROWS, Floats

SIZE = 512
"""Members of a cluster on average."""

SAMPLE = 32
"""Points a cluster that the centres are made from."""

ROUNDS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """The points that are nearest to a centre, ascending, and those for which it is another of the nearest few.

    Of the visitors, those for whom it is a nearer one come first.
    """

    members: Numbers
    visitors: Numbers


def clusters(points: Floats, nearest: int = 1, threads: int | None = None) -> list[Cluster]:
    """Each of ``points`` ``(n, dim)`` is a member of one cluster, and visits as many as make ``nearest`` with it."""
    random = np.random.default_rng(0)
    count = max(len(points) // SIZE, 1)
    sample = np.sort(random.choice(len(points), min(SAMPLE * count, len(points)), replace=False))
    centres = means_of(points[sample], count, random, threads)
    nearest = min(nearest, len(centres))
    # Flattened by columns: first all members, then all visitors for whom a centre is the second nearest, and so on.
    mine = nearest_of(points, centres, nearest, threads).T.ravel()
    ends = np.cumsum(np.bincount(mine, minlength=len(centres)))[:-1]
    places = np.split(np.argsort(mine, kind="stable"), ends)
    return [Cluster(members=of[of < len(points)], visitors=of[of >= len(points)] % len(points)) for of in places]


def means_of(sample: Floats, count: int, random: np.random.Generator, threads: int | None = None) -> Floats:
    """Directions of ``count`` means of a sample, by a few rounds of spherical k-means from an arbitrary start."""
    centres = _directions(sample[random.choice(len(sample), count, replace=False)])
    for _ in range(ROUNDS):
        mine = nearest_of(sample, centres, 1, threads)[:, 0]
        order = np.argsort(mine, kind="stable")
        begins = np.flatnonzero(np.diff(mine[order], prepend=-1))
        # A centre without points stays where it is.
        centres[mine[order[begins]]] = _directions(np.add.reduceat(sample[order], begins))
    return centres


def nearest_of(points: Floats, centres: Floats, count: int, threads: int | None = None) -> npt.NDArray[np.int32]:
    """The ``count`` centres that each point is nearest to, ``(points, count)``, the nearest first."""
    found = np.empty((len(points), count), dtype=np.int32)

    def find(start: int) -> None:
        cosines = points[start : start + ROWS] @ centres.T
        if count == 1:
            found[start : start + ROWS, 0] = cosines.argmax(axis=1)
            return
        few = np.argpartition(cosines, -count, axis=1)[:, -count:]
        order = np.argsort(-np.take_along_axis(cosines, few, axis=1), axis=1)
        found[start : start + ROWS] = np.take_along_axis(few, order, axis=1)

    for_each(find, range(0, len(points), ROWS), threads=threads)
    return found


def _directions(points: Floats) -> Floats:
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    directions: Floats = np.divide(points, np.maximum(lengths, 1e-30), dtype=np.float32)
    return directions
