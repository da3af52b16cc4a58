"""Short stand-ins for vectors whose product is never below the cosine, so that most pairs need no more."""

from __future__ import annotations

import numpy as np

from clipsieve.dedup.result import Numbers
from clipsieve.dedup.vectors import ROWS, Doubles, Floats, UnitVectors

SAMPLE = 4096
"""Rows that the rotation is made from."""

PROBES = 128
"""Rows that are compared with all others to choose the number of dimensions."""

CHOICES = (32, 64, 128, 256)
"""Dimensions that a sketch may have."""

CANDIDATE_COST = 50_000
"""What a pair costs that a sketch cannot rule out, in dimensions of a product: about 0.4 µs against 8 ps."""


def sketch(vectors: UnitVectors, rows: Numbers) -> Floats:
    """``(rows, few + 1)`` float32: a product of two of its rows is at least their cosine, less ``vectors.margin``.

    A rotation packs what vectors have in common into few dimensions. With x = (a, b) and y = (c, d) after it, a.c is
    known and b.d is at most ``|b| |d|`` (Cauchy-Schwarz): the sketch of x is (a, ``|b|``).
    """
    basis = rotation(vectors, rows)
    basis = basis[:, : affordable(vectors, rows, basis)]
    found = np.empty((len(rows), basis.shape[1] + 1), dtype=np.float32)
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        found[part] = shorten(vectors.unit(rows[part]), basis)
    return found


def rotation(vectors: UnitVectors, rows: Numbers) -> Doubles:
    """Orthonormal directions as columns, ``(dim, dim)``, from the one with most of the energy to that with least."""
    sample = vectors.unit(rows[:: max(len(rows) // SAMPLE, 1)])
    # A copy, as OpenBLAS goes another way for a product of an array with itself, and that way crashes on large ones.
    moment = sample.T.copy() @ sample
    directions = np.linalg.eigh(moment.astype(np.float64))[1][:, ::-1]
    return np.ascontiguousarray(directions)


def shorten(unit: Floats, basis: Doubles) -> Floats:
    """The sketches of unit rows: their coordinates in ``basis`` ``(dim, few)``, and the length of what is left.

    In float64, so that a sketch's own error is no more than rounding it to float32.
    """
    exact = unit.astype(np.float64)
    kept = exact @ basis
    left = np.square(exact).sum(axis=1) - np.square(kept).sum(axis=1)
    return np.column_stack([kept, np.sqrt(np.maximum(left, 0))]).astype(np.float32)


def affordable(vectors: UnitVectors, rows: Numbers, basis: Doubles) -> int:
    """The dimensions of a sketch with which a search costs least, judged by some rows against all others."""
    probes = rows[:: max(len(rows) // PROBES, 1)][:PROBES]
    best = np.full(len(probes), -1, dtype=np.float32)
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        cosines = vectors.unit(probes) @ vectors.unit(some).T
        cosines[probes[:, None] == some] = -1
        best = np.maximum(best, cosines.max(axis=1))
    others = vectors.unit(rows[:: max(len(rows) // SAMPLE, 1)])
    costs = {}
    for few in (few for few in CHOICES if few <= vectors.dim):
        bounds = shorten(vectors.unit(probes), basis[:, :few]) @ shorten(others, basis[:, :few]).T
        left = float((bounds >= best[:, None]).mean())
        # Where a sketch rules out too little, the vectors themselves are compared.
        costs[few] = few + min(CANDIDATE_COST * left, vectors.dim)
    return min(costs, key=lambda few: costs[few], default=vectors.dim)
