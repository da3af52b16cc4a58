"""Near duplicates by look: images whose 64-bit perceptual hashes differ in few bits."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.core.layout import Mask
from clipsieve.dedup.classes import Classes
from clipsieve.dedup.hamming import close_pairs, distances
from clipsieve.dedup.neighbours import Neighbours
from clipsieve.dedup.preference import Preference
from clipsieve.dedup.removal import check_links, decide
from clipsieve.dedup.result import Duplicates, Links

THRESHOLD = 6
"""Bits; docs/duplicates.md has what it finds on photographs."""

DIGITS = 16
HEXADECIMAL = frozenset(string.hexdigits)

HashColumn: TypeAlias = npt.NDArray[np.uint64] | Sequence[str | None] | pa.Array | pa.ChunkedArray


def perceptual(
    hashes: HashColumn,
    threshold: int = THRESHOLD,
    *,
    order: npt.ArrayLike | None = None,
    units: npt.ArrayLike | None = None,
    links: Links = "any",
    against: HashColumn | None = None,
) -> Duplicates:
    """Finds images of which another has a hash that differs in at most ``threshold`` bits.

    ``hashes`` ``(n,)`` are uint64, or strings of 16 hexadecimal digits as ``perceptual_hash`` gives them, null (in
    Arrow) where there is none. ``order``, ``units``, ``links`` and ``against`` are those of ``semantic``.
    """
    if not 0 <= threshold <= 64:
        raise ValueError(f"threshold is a number of bits from 0 to 64, not {threshold}")
    check_links(links)
    ours, usable = _bits(hashes)
    others, too = _bits([] if against is None else against)
    preference = Preference.of(len(ours), len(others), order, units)
    both = np.concatenate([ours, others])
    _, keys = np.unique(both, return_inverse=True)
    classes = Classes.build(np.where(np.concatenate([usable, too]), keys, -1), preference)
    found = Neighbours(classes, preference, int(threshold))
    different = both[classes.first]
    for left, right, bits in close_pairs(different, int(threshold)):
        found.offer(left, right, bits)
    removal = decide(found, lambda a, b: distances(different[a][:, None], different[b]).astype(np.int64), links)
    nearest, distance = found.nearest()
    return Duplicates(
        removed=removal.removed,
        group=removal.group,
        duplicate_of=removal.duplicate_of,
        nearest=nearest,
        distance=distance,
        method="hashes, exact search",
    )


def _bits(hashes: HashColumn) -> tuple[npt.NDArray[np.uint64], Mask]:
    """The hashes as uint64, ``(n,)``, and which of them are there."""
    if isinstance(hashes, np.ndarray) and hashes.dtype == np.uint64 and hashes.ndim == 1:
        return hashes, np.ones(len(hashes), dtype=bool)
    if isinstance(hashes, (pa.Array, pa.ChunkedArray)) and pa.types.is_uint64(hashes.type):
        return hashes.fill_null(0).to_numpy(), hashes.is_valid().to_numpy(zero_copy_only=False)
    texts = hashes.to_pylist() if isinstance(hashes, (pa.Array, pa.ChunkedArray)) else list(hashes)
    there: Mask = np.array([text is not None for text in texts], dtype=bool)
    digits = "".join("0" * DIGITS if text is None else text for text in texts if text is None or _is_hash(text))
    if len(digits) < DIGITS * len(texts):
        raise ValueError(f"hashes are uint64, or strings of {DIGITS} hexadecimal digits each")
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64), there


def _is_hash(text: object) -> bool:
    return isinstance(text, str) and len(text) == DIGITS and set(text) <= HEXADECIMAL
