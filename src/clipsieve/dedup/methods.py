"""The two ways to go through all pairs: all of them, or those that share a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from clipsieve.core.layout import Mask
from clipsieve.core.spread import for_each
from clipsieve.dedup.clusters import clusters
from clipsieve.dedup.neighbours import Neighbours
from clipsieve.dedup.result import Numbers, Progress
from clipsieve.dedup.search import BLOCK, STRIP, Search, blocks
from clipsieve.dedup.sketch import sketch
from clipsieve.dedup.vectors import DECIMALS, Floats, UnitVectors

SMALL = 8192
"""Up to so many classes all are compared with all at once: a rotation and sketches of them would take longer."""

NEAREST = 48
"""Clusters that a vector is looked for in when the search is approximate.

Of a million, with 16 it found 0.991 of the links in a third of the time, with 48 it finds 0.999: see
``benchmarks/duplicates.py``.
"""

SAMPLE = 2048
"""Images that are compared with all others to measure the recall."""


def exact(vectors: UnitVectors, found: Neighbours, progress: Progress | None) -> float:
    """Offers ``found`` every pair that can be a nearest one or a link; gives the recall, 1."""
    search = Search(vectors, found)
    everything = np.arange(len(found.classes))
    if len(everything) <= SMALL:
        _compare(search, _within(search, everything))
        return 1.0
    bounds = sketch(vectors, found.classes.first)
    _compare(search, [pair for cluster in clusters(bounds) for pair in _within(search, cluster.members)])
    # Now that most of the nearest are known, sketches rule out nearly every pair. Classes that ask for little come
    # first, so that the least of a block is near what each of its classes asks for.
    everything = np.argsort(search.low)
    pairs = _within(search, everything, STRIP)
    for_each(lambda pair: search.screen(*pair, bounds), pairs, progress)
    search.finish()
    return 1.0


def approximate(vectors: UnitVectors, found: Neighbours, progress: Progress | None) -> float | None:
    """Offers ``found`` such pairs that meet in a cluster; gives the recall, None where a sample has no link."""
    if not len(found.classes):
        return None
    search = Search(vectors, found)
    bounds = sketch(vectors, found.classes.first)
    near = clusters(bounds, NEAREST)
    _compare(search, [pair for cluster in near for pair in _within(search, cluster.members)])
    pairs = []
    for cluster in near:
        ours = cluster.members[: search.ours(cluster.members)]
        for start in range(0, len(cluster.visitors), BLOCK):
            some = cluster.visitors[start : start + BLOCK]
            pairs.append((some, cluster.members if search.ours(some) else ours))
    for_each(lambda pair: search.screen(*pair, bounds), pairs, progress)
    search.finish()
    return recall(vectors, found)


def _within(search: Search, group: Numbers, width: int = BLOCK) -> list[tuple[Numbers, Numbers]]:
    """Blocks that hold every two classes of ``group`` of which one has an image of the input."""
    return [(group[i], group[j]) for i, j in blocks(len(group), search.ours(group), width)]


def _compare(search: Search, pairs: Sequence[tuple[Numbers, Numbers]]) -> None:
    for_each(lambda pair: search.compare(*pair), pairs)
    search.finish()


def recall(vectors: UnitVectors, found: Neighbours) -> float | None:
    """Of the links of some images, those whose ends have been connected: removal goes by the links of what is."""
    classes, root = found.classes, found.components.roots()
    sample = recall_sample(classes.wanted)
    unit = vectors.unit(classes.first[sample])
    counts: list[tuple[int, int]] = []

    def count(start: int) -> None:
        others = np.arange(start, min(start + BLOCK, len(classes)))
        cosines: Floats = unit @ vectors.unit(classes.first[others]).T
        strangers = classes.exclusion_group[sample][:, None] != classes.exclusion_group[others]
        together = root[sample][:, None] == root[others]
        counts.append(links_met(cosines, found.limit, strangers, together))

    for_each(count, range(0, len(classes), BLOCK))
    return recall_of(counts)


def recall_sample(wanted: int) -> Numbers:
    """Of so many classes those whose links are counted."""
    return np.sort(np.random.default_rng(0).choice(wanted, min(SAMPLE, wanted), replace=False))


def links_met(cosines: Floats, limit: int, strangers: Mask, together: Mask) -> tuple[int, int]:
    """How many links there are between classes that may have one, and how many between those that are connected."""
    linked = (cosines >= np.float32(1 - (limit + 0.5) / DECIMALS)) & strangers
    return int(np.count_nonzero(linked)), int(np.count_nonzero(linked & together))


def recall_of(counts: Iterable[tuple[int, int]]) -> float | None:
    """Of all links those that were met; None where there are none."""
    links, met = np.sum([(0, 0), *counts], axis=0).tolist()
    return met / links if links else None
