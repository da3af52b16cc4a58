"""Every pair of 64-bit hashes that differ in at most so many bits, for many hashes without comparing all with all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from clipsieve.dedup.result import Numbers

Hashes = npt.NDArray[np.uint64]

BANDS, BAND_BITS = 4, 16
"""Four bands of 16 bits: with up to some millions of hashes a band's value is shared by few of them."""

MOST = 15
"""Bits up to which bands pay: beyond, so many of their values are near each other that comparing all is quicker."""

FEW = 2048
"""Hashes up to which comparing all with all is quicker."""

PAIRS = 2**20
"""Candidate pairs that are compared at once, 8 MB an array."""

_ONES = np.array([value.bit_count() for value in range(2**16)], dtype=np.uint8)


def distances(left: Hashes, right: Hashes) -> npt.NDArray[np.uint8]:
    """Bits that differ, element by element."""
    differ = np.atleast_1d(left ^ right)
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.asarray(np.bitwise_count(differ), dtype=np.uint8)
    parts = _ONES[differ.view(np.uint16).reshape(*differ.shape, 4)]
    return np.asarray(parts.sum(axis=-1), dtype=np.uint8)


def close_pairs(hashes: Hashes, limit: int) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
    """Pairs of different places in ``hashes`` ``(n,)`` with at most ``limit`` bits between them, and those bits.

    A pair can come several times, in either order.
    """
    candidates = _all(len(hashes)) if len(hashes) <= FEW or limit > MOST else _by_bands(hashes, limit)
    for left, right in candidates:
        bits = distances(hashes[left], hashes[right])
        near = bits <= limit
        yield left[near], right[near], bits[near].astype(np.int64)


def _all(count: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Every two of ``count`` places, once."""
    rows = max(PAIRS // max(count, 1), 1)
    for start in range(0, count, rows):
        a, b = np.indices((min(rows, count - start), count - start), dtype=np.int64).reshape(2, -1)
        yield a[a < b] + start, b[a < b] + start


def _by_bands(hashes: Hashes, limit: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Every two places whose hashes can differ in at most ``limit`` bits.

    Multi-index hashing (Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR
    2012): of four bands at least one differs in no more than a quarter of the bits, so only hashes that nearly agree
    in a band are compared.
    """
    share, rest = divmod(limit, BANDS)
    for band in range(BANDS):
        # If the first `rest + 1` bands all differ in more than `share` bits and the others in at least that many,
        # the whole differs in more than `limit`.
        radius = share if band <= rest else share - 1
        values = (hashes >> np.uint64(BAND_BITS * band)).astype(np.uint16)
        order = np.argsort(values, kind="stable")
        ends = np.searchsorted(values[order], np.arange(2**BAND_BITS + 1))
        for flip in _flips(radius):
            for a, b in _joined(values[order], ends, flip):
                yield order[a], order[b]


def _flips(radius: int) -> Iterator[int]:
    """Every way to change at most ``radius`` bits of a band."""
    for bits in range(radius + 1):
        for chosen in combinations(range(BAND_BITS), bits):
            yield sum(1 << bit for bit in chosen)


def _joined(values: npt.NDArray[np.uint16], ends: Numbers, flip: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs of places in the sorted ``values`` whose values differ by ``flip``, each once, some at a time."""
    places = np.arange(len(values))
    wanted = values ^ np.uint16(flip)
    start, stop = ends[wanted], ends[wanted.astype(np.int64) + 1]
    # Each pair from its earlier place.
    start = np.maximum(start, places + 1)
    counts = np.maximum(stop - start, 0)
    total = np.cumsum(counts)
    first = 0
    while first < len(values):
        before = total[first] - counts[first]
        last = max(int(np.searchsorted(total, before + PAIRS, side="right")), first + 1)
        some = counts[first:last]
        left = np.repeat(places[first:last], some)
        begins = np.cumsum(some) - some
        right = np.arange(len(left)) - np.repeat(begins - start[first:last], some)
        yield left, right
        first = last
