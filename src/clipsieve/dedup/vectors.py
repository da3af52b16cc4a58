"""Rows of a large array as unit vectors, and their cosines in arithmetic that has no rounding of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clipsieve.core.layout import Mask
from clipsieve.dedup.result import Numbers

ROWS = 1024
"""Rows that are read and converted at once: 4 MB of float64 at 512 dimensions."""

PAIRS = 512
"""Pairs whose rows are gathered at once: 2 MB at 512 dimensions, which stay in the processor's cache."""

SCALE = 2.0**26
"""Steps of a coordinate. A product of two unit vectors is then a whole number below 2**53, and so is every partial
sum of it (Cauchy-Schwarz): float64 adds them without rounding, in whatever order a library does it."""

DECIMALS = 100_000
"""Cosines are compared at 5 decimals; a distance is a whole number of such steps, by which a cosine lies below 1."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class UnitVectors:
    """``ours`` ``(n, dim)`` followed by ``others`` ``(m, dim)`` as one array of unit vectors, converted as asked for.

    ``usable`` ``(n + m,)`` is False for rows without a direction: with NaN or infinity, or shorter than 1e-12.
    """

    def __init__(self, ours: npt.NDArray[np.floating], others: npt.NDArray[np.floating] | None = None) -> None:
        # The plain array beneath a memory map: a slice of one is far quicker than a slice of the map.
        self.parts = [np.asarray(part) for part in (ours, others) if part is not None]
        self.dim: int = self.parts[0].shape[1]
        self.length = sum(map(len, self.parts))
        self.norms = np.concatenate([_norms(part) for part in self.parts])
        # Beyond these lengths products of float32 would leave its range; no model comes near them.
        self.usable: Mask = (self.norms > 1e-12) & (self.norms < 1e12)
        self.inverse = np.zeros(self.length, dtype=np.float32)
        self.inverse[self.usable] = 1 / self.norms[self.usable]

    def raw(self, rows: Numbers) -> Floats:
        """The rows as stored, ``(rows, dim)`` float32."""
        ours = len(self.parts[0])
        if len(self.parts) == 1 or not len(rows) or rows.max() < ours:
            return self.parts[0][rows].astype(np.float32, copy=False)
        found = np.empty((len(rows), self.dim), dtype=np.float32)
        mine = rows < ours
        found[mine] = self.parts[0][rows[mine]]
        found[~mine] = self.parts[1][rows[~mine] - ours]
        return found

    def fixed(self, rows: Numbers) -> Doubles:
        """Unit vectors as whole numbers of steps of ``1 / SCALE``, ``(rows, dim)`` float64."""
        found = self.raw(rows).astype(np.float64)
        found *= (SCALE / self.norms[rows])[:, None]
        return np.rint(found, out=found)

    def unit(self, rows: Numbers) -> Floats:
        """Unit vectors, ``(rows, dim)`` float32: products of them lie within ``margin`` of the exact cosine."""
        return self.raw(rows) * self.inverse[rows, None]

    def products(self, left: Numbers, right: Numbers) -> Floats:
        """Cosines of each row of ``left`` with the one beside it in ``right``, ``(pairs,)``, to within ``margin``."""
        found = np.empty(len(left), dtype=np.float32)
        for start in range(0, len(left), PAIRS):
            part = slice(start, start + PAIRS)
            np.einsum("ij,ij->i", self.raw(left[part]), self.raw(right[part]), out=found[part])
        return found * self.inverse[left] * self.inverse[right]

    @property
    def margin(self) -> float:
        """The most by which a float32 product of ``unit`` rows, summed in any order, misses the exact cosine.

        ``dim * 2**-24`` for the sum (Higham, Accuracy and Stability, section 3.1), the rest for rounding the rows;
        doubled to be safe.
        """
        return float(2 * (self.dim + 16) * 2.0**-24)

    def distances(self, left: Numbers, right: Numbers) -> Numbers:
        """Distances of every row of ``left`` to every row of ``right``, ``(left, right)``."""
        return _to_distances(self.fixed(left) @ self.fixed(right).T)

    def pair_distances(self, left: Numbers, right: Numbers) -> Numbers:
        """Distances of each row of ``left`` to the one beside it in ``right``, ``(pairs,)``, as by ``distances``."""
        found = np.empty(len(left), dtype=np.int64)
        for start in range(0, len(left), ROWS):
            part = slice(start, start + ROWS)
            found[part] = _to_distances(np.einsum("ij,ij->i", self.fixed(left[part]), self.fixed(right[part])))
        return found

    def labels(self) -> Numbers:
        """A number for each distinct row, ``(n + m,)``; -1 for rows that are not usable."""
        labels = np.full(self.length, -1, dtype=np.int64)
        rows = np.flatnonzero(self.usable)
        if not len(rows):
            return labels
        _, first, inverse = np.unique(self._hashes(rows), return_index=True, return_inverse=True)
        twins = np.flatnonzero(first[inverse] != np.arange(len(rows)))
        for start in range(0, len(twins), ROWS):
            part = twins[start : start + ROWS]
            same = (self.raw(rows[part]) == self.raw(rows[first[inverse[part]]])).all(axis=1)
            # Rows of equal hash that differ stand for themselves.
            inverse[part[~same]] = len(first) + part[~same]
        labels[rows] = inverse
        return labels

    def _hashes(self, rows: Numbers) -> npt.NDArray[np.uint64]:
        weights = np.random.default_rng(0).integers(2**63, size=self.dim, dtype=np.uint64) * 2 + 1
        found = np.empty(len(rows), dtype=np.uint64)
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            # Adding zero makes -0 and 0 the same bits.
            bits = (self.raw(rows[part]) + np.float32(0)).view(np.uint32)
            found[part] = bits.astype(np.uint64) @ weights
        return found


def _norms(rows: npt.NDArray[np.floating]) -> Doubles:
    norms = np.empty(len(rows))
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS].astype(np.float32).astype(np.float64)
        norms[start : start + ROWS] = np.sqrt(np.square(part, out=part).sum(axis=1))
    return norms


def _to_distances(products: Doubles) -> Numbers:
    cosines = np.rint(products * (DECIMALS / SCALE**2)).astype(np.int64)
    return DECIMALS - cosines.clip(-DECIMALS, DECIMALS)


def distance_limit(threshold: float) -> int:
    """The largest distance whose cosine, at 5 decimals, is at or above ``threshold``."""
    steps = round(threshold * DECIMALS)
    while steps / DECIMALS < threshold:
        steps += 1
    while (steps - 1) / DECIMALS >= threshold:
        steps -= 1
    return DECIMALS - steps
