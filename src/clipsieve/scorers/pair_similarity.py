"""``pair_similarity``: how alike two images of one sample are, as the cosine of their CLIP vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.scorers.base import OnLists, encoder_of

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder, Needs, Unit


PAIRS_AT_ONCE = 4096
"""Pairs whose vectors are gathered at once: 16 MB at 512 dimensions, however many images a sample has."""


@dataclass(frozen=True, kw_only=True)
class PairSimilarity(OnLists):
    """Cosine between two images, for every pair of images of a sample, rounded to 5 decimals.

    ``model`` is a hub id, a folder or an encoder.
    """

    model: str | Encoder = "openai/clip-vit-base-patch32"

    columns: ClassVar[Mapping[str, pa.DataType]] = {"pair_similarity": pa.float64()}
    unit: ClassVar[Unit] = "pair"
    reads: ClassVar[Needs] = "vectors"
    cost: ClassVar[float] = 0.001  # ms a pair once the vectors are there, benchmarks/pixel_scorers.py
    why_missing: ClassVar[str] = "an image of the pair cannot be read"

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """float64 in [-1, 1], in the order of ``batch.pairs``; NaN where one of the two has no vector."""
        vectors = batch.image_vectors
        cosines = np.empty(len(batch.pairs))
        for start in range(0, len(cosines), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            first, second = batch.pairs[part].T
            cosines[part] = np.einsum("ij,ij->i", vectors[first], vectors[second], dtype=np.float64)
        return {"pair_similarity": pa.array(cosines.clip(-1.0, 1.0).round(5), pa.float64())}

    def _batch(self, images: Sequence[Any], texts: Sequence[str | Sequence[str] | None] | None) -> Batch:
        return Batch.from_lists(images, texts, encoder=encoder_of(self.model))
