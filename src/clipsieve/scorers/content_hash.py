"""``content_hash``: the SHA-256 of an image's encoded bytes, by which equal files are found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.scorers.base import OnLists

if TYPE_CHECKING:
    from clipsieve.core.contracts import Needs, Unit


@dataclass(frozen=True, kw_only=True)
class ContentHash(OnLists):
    """SHA-256 of the encoded bytes as stored, 64 hexadecimal digits: equal for equal files alone."""

    columns: ClassVar[Mapping[str, pa.DataType]] = {"content_hash": pa.string()}
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[Needs] = "bytes"
    cost: ClassVar[float] = 0.07  # ms of a JPEG of 160 kB, benchmarks/pixel_scorers.py

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """string; null for an image that cannot be fetched, or that came as pixels. A broken image has its hash."""
        hashes = [None if data is None else hashlib.sha256(data).hexdigest() for data in batch.bytes]
        return {"content_hash": pa.array(hashes, pa.string())}
