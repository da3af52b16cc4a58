"""The true order of candidates: cosines in float64, from the vectors that are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from clipsieve.core.contracts import Vectors


def vectors_of(rows: pa.Table | pa.RecordBatch) -> Vectors:
    """The column ``vector`` as ``(rows, dim)`` float32."""
    column = rows["vector"].combine_chunks() if isinstance(rows, pa.Table) else rows["vector"]
    vectors: Vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return vectors


def ranked(found: pa.Table, query: npt.NDArray[np.float32]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The ids and cosines of candidates, highest first, equals by id."""
    if len(found) == 0:
        return [], np.zeros(0)
    vectors, wanted = vectors_of(found).astype(np.float64), query.astype(np.float64)
    # One product a row: a row's cosine does not depend on which others the store gave, to the last bit.
    cosines = np.einsum("nd,d->n", vectors, wanted)
    cosines /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted)
    ids = found["id"].to_pylist()
    order = sorted(range(len(ids)), key=lambda i: (-cosines[i], ids[i]))
    return [ids[i] for i in order], np.clip(cosines[order], -1.0, 1.0)
