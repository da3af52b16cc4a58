"""Duplicates byte by byte: images with the same content hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.dedup.classes import Classes
from clipsieve.dedup.neighbours import Neighbours
from clipsieve.dedup.preference import Preference
from clipsieve.dedup.removal import check_links, decide
from clipsieve.dedup.result import Duplicates, Links, Numbers


def exact(
    hashes: Sequence[Any] | pa.Array | pa.ChunkedArray,
    *,
    order: npt.ArrayLike | None = None,
    units: npt.ArrayLike | None = None,
    links: Links = "any",
    against: Sequence[Any] | pa.Array | pa.ChunkedArray | None = None,
) -> Duplicates:
    """Finds images of equal ``hashes`` ``(n,)``, strings or bytes; null is passed over.

    ``order``, ``units``, ``links`` and ``against`` are those of ``semantic``.
    """
    check_links(links)
    ours, others = _chunks(hashes), [] if against is None else _chunks(against)
    n = sum(map(len, ours))
    preference = Preference.of(n, sum(map(len, others)), order, units)
    column = pa.chunked_array([*ours, *others], pa.large_binary())
    encoded = column.combine_chunks().dictionary_encode()
    keys: Numbers = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    classes = Classes.build(keys, preference)
    found = Neighbours(classes, preference, 0)
    removal = decide(found, lambda a, b: (a[:, None] != b).astype(np.int64), links)
    return Duplicates(
        removed=removal.removed,
        group=removal.group,
        duplicate_of=removal.duplicate_of,
        nearest=found.nearest()[0],
        method="equal bytes",
    )


def _chunks(hashes: Sequence[Any] | pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    """The hashes as Arrow arrays of one type, whatever they came as."""
    array = hashes if isinstance(hashes, (pa.Array, pa.ChunkedArray)) else pa.array(hashes)
    try:
        same = array.cast(pa.large_binary())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ValueError(f"hashes are strings or bytes, not {array.type}") from None
    return same.chunks if isinstance(same, pa.ChunkedArray) else [same]
