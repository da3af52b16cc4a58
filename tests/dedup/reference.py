"""Dedup as its page says it, pair by pair: what the quick one is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st


@dataclass
class Case:
    """``n`` images and ``others`` of an earlier data set, and how they are to be looked at."""

    n: int
    others: int
    order: list[int]
    units: list[int]
    links: Any


@dataclass
class Expected:
    removed: list[bool]
    group: list[int]
    nearest: list[int]
    duplicate_of: list[int]
    distance: list[int]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Case, np.random.Generator]:
    """A case and what draws the images that belong to it."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, others = draw(st.integers(0, 24)), draw(st.integers(0, 8))
    several = draw(st.integers(1, 4))
    units = random.integers(0, max(n // several, 1), size=n) if several > 1 else np.arange(n)
    first = {unit: place for place, unit in reversed(list(enumerate(units[random.permutation(n)])))}
    order = sorted(random.permutation(n).tolist(), key=lambda image: first[units[image]])
    links = draw(st.sampled_from(["any", "leader", "group"]))
    return Case(n=n, others=others, order=order, units=units.tolist(), links=links), random


def integer_distances(vectors: np.ndarray) -> np.ndarray:
    """Steps of 1e-5 below a cosine of 1, in whole numbers throughout; -1 where a row has no direction."""
    rows = vectors.astype(np.float64)
    norms = np.sqrt(np.square(rows).sum(axis=1))
    fine = (norms > 1e-12) & (norms < 1e12)  # shorter and longer ones count as rows without a direction
    fixed = np.zeros(rows.shape, dtype=np.int64)
    fixed[fine] = np.rint(rows[fine] * (2.0**26 / norms[fine])[:, None]).astype(np.int64)
    cosines = np.rint((fixed @ fixed.T) * (1e5 / 2.0**52)).astype(np.int64).clip(-100_000, 100_000)
    distances: np.ndarray = 100_000 - cosines
    distances[~fine] = distances[:, ~fine] = -1
    return distances


def expected(case: Case, distances: np.ndarray, same: np.ndarray, limit: int, far: bool = True) -> Expected:
    """What is to come of images with ``distances`` between them, of which some are the ``same``, both ``(all, all)``.

    The earlier data set stands behind the images. With ``far`` the nearest is looked for beyond ``limit``.
    """
    n, everyone = case.n, [*range(case.n, case.n + case.others), *case.order]
    rank = {image: place for place, image in enumerate(everyone)}
    unit = {image: case.units[image] if image < n else -1 - image for image in everyone}

    def comparable(i: int, j: int) -> bool:
        return unit[i] != unit[j] and distances[i][j] >= 0

    def nearest(i: int, images: list[int]) -> int:
        return min(images, key=lambda j: (distances[i][j], not same[i][j], rank[j]), default=-1)

    def linked_with(i: int) -> list[int]:
        # Of the earlier data set only the same images are known to belong together.
        return [
            j for j in everyone if comparable(i, j) and distances[i][j] <= limit and (i < n or j < n or same[i][j])
        ]  # fmt: skip

    linked = {image: linked_with(image) for image in everyone}
    removed = _removed(case, linked, rank, unit)
    gone = {unit[image] for image in range(n) if removed[image]}
    parent = _components(linked)
    found = [
        nearest(i, [j for j in everyone if comparable(i, j) and (far or distances[i][j] <= limit)]) for i in range(n)
    ]
    return Expected(
        removed=removed,
        group=[min(j for j in everyone if parent[j] == parent[i]) if linked[i] else -1 for i in range(n)],
        nearest=found,
        duplicate_of=[
            nearest(i, [j for j in linked[i] if unit[j] not in gone]) if removed[i] else -1 for i in range(n)
        ],
        distance=[int(distances[i][j]) if j >= 0 else -1 for i, j in enumerate(found)],
    )  # fmt: skip


def _removed(
    case: Case, linked: Mapping[int, list[int]], rank: Mapping[int, int], unit: Mapping[int, int]
) -> list[bool]:
    removed = [False] * case.n
    if case.links == "group":
        with_links = [image for image in linked if linked[image]]
        together = _components(
            {i: [*linked[i], *(j for j in with_links if unit[j] == unit[i])] for i in with_links}
        )  # fmt: skip
        for i in (image for image in with_links if image < case.n):
            first = min((j for j in with_links if together[j] == together[i]), key=rank.__getitem__)
            removed[i] = unit[first] != unit[i]
        return removed
    gone: set[int] = set()
    for i in case.order:
        start = min(rank[j] for j in rank if unit[j] == unit[i])
        earlier = [j for j in linked[i] if rank[j] < start]
        removed[i] = any(case.links == "any" or unit[j] not in gone for j in earlier)
        if removed[i]:
            gone.add(unit[i])
    return removed


def _components(linked: Mapping[int, list[int]]) -> dict[int, int]:
    """The lowest number that each one is connected with; links lead both ways."""
    parent: dict[int, int] = {}
    for start in sorted(linked):
        todo = [start]
        while todo:
            image = todo.pop()
            if image not in parent:
                parent[image] = start
                todo += linked[image]
    return parent
