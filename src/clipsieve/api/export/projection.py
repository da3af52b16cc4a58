"""Vectors drawn in the plane by UMAP, and the nearest neighbours of each; the same vectors give the same picture.

Up to ``ALL`` images the neighbours are exact, by cosine over the whole vectors, and UMAP works from these. Of more,
the neighbours are those that UMAP's own search (PyNNDescent) finds, and UMAP is fitted to ``ALL`` of them, drawn at
random with a fixed seed, and places the others among these.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.api.progress import Progress
from clipsieve.core.contracts import Vectors
from clipsieve.errors import OutputError

Floats: TypeAlias = npt.NDArray[np.float32]
Numbers: TypeAlias = npt.NDArray[np.int64]

ALL = 100_000
"""Images up to which everything is exact: about five minutes on two cores."""

NEIGHBOURS = 15
"""Of each image, itself included, as UMAP counts them; UMAP's default."""

SEED = 0

BLOCK = 256
"""Rows that are compared with all others at once: 100 MB of cosines at ``ALL``."""

PLACED = 10_000
"""Images that are placed among those that UMAP was fitted to at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Points ``(n, 2)``; for each its nearest, ``(n, k)``, itself among them, and their cosine distances."""

    points: Floats
    neighbours: Numbers
    distances: Floats


def project(vectors: Vectors, progress: Progress) -> Projection:
    """Draws unit vectors ``(n, dim)``, n at least 1."""
    try:
        import umap
        from umap.umap_ import nearest_neighbors
    except ImportError:
        raise OutputError("an export to embedding-atlas needs UMAP: pip install 'clipsieve[export]'") from None
    count = len(vectors)
    if count == 1:
        zeros = np.zeros((1, 2), dtype=np.float32)
        return Projection(points=zeros, neighbours=np.zeros((1, 1), dtype=np.int64), distances=zeros[:, :1])
    # With more threads than one the picture would be another each time.
    settings: dict[str, Any] = {
        "n_neighbors": min(NEIGHBOURS, count),
        "metric": "cosine",
        "random_state": SEED,
        "n_jobs": 1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one cannot place more images later, and how few there are
        if count <= ALL:
            near, distances = exact_neighbours(vectors, NEIGHBOURS, progress)
            progress.say(f"drawing {count:,} images with UMAP")
            # The spectral start needs more images than the dimensions it looks for.
            start = "spectral" if count > 3 else "random"
            points = umap.UMAP(precomputed_knn=(near, distances), init=start, **settings).fit_transform(vectors)
        else:
            progress.say(f"looking for the neighbours of {count:,} images")
            near, distances, _ = nearest_neighbors(vectors, NEIGHBOURS, "cosine", None, False, SEED)
            progress.say(f"drawing {ALL:,} images with UMAP, and placing {count - ALL:,} among them")
            points = _placed(umap.UMAP(**settings), vectors)
    return Projection(points=points, neighbours=near.astype(np.int64), distances=distances.astype(np.float32))


def exact_neighbours(vectors: Vectors, k: int, progress: Progress) -> tuple[Numbers, Floats]:
    """The ``k`` nearest of each row, itself first, and how far they are."""
    count = len(vectors)
    k = min(k, count)
    near = np.empty((count, k), dtype=np.int64)
    distances = np.empty((count, k), dtype=np.float32)
    for start in range(0, count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, count))
        # Rounded, so that images that are equal but for the arithmetic come in input order.
        gaps = np.round(1 - vectors[rows] @ vectors.T, 6)
        np.maximum(gaps, 0, out=gaps)
        gaps[np.arange(len(rows)), rows] = -1
        found = np.sort(np.argpartition(gaps, k - 1, axis=1)[:, :k], axis=1)
        found = np.take_along_axis(found, np.take_along_axis(gaps, found, 1).argsort(axis=1, kind="stable"), 1)
        near[rows] = found
        distances[rows] = np.maximum(np.take_along_axis(gaps, found, 1), 0)
        progress.compare(int(rows[-1]) + 1, count)
    return near, distances


def _placed(model: Any, vectors: Vectors) -> Floats:
    """The points of all, by a model fitted to some."""
    some = np.sort(np.random.default_rng(SEED).choice(len(vectors), ALL, replace=False))
    points = np.empty((len(vectors), 2), dtype=np.float32)
    points[some] = model.fit_transform(vectors[some])
    others = np.setdiff1d(np.arange(len(vectors)), some)
    for start in range(0, len(others), PLACED):
        rows = others[start : start + PLACED]
        points[rows] = model.transform(vectors[rows])
    return points
