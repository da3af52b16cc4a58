"""``clip_score``: how well an image fits the texts of its sample, as the cosine of their CLIP vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.core.embed import LongText
from clipsieve.core.similarity import best_texts
from clipsieve.scorers.base import OnLists, encoder_of

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder, Needs, Unit


@dataclass(frozen=True, kw_only=True)
class ClipScore(OnLists):
    """Highest cosine between an image and any text of its sample, rounded to 5 decimals.

    The cosine of Radford et al., "Learning transferable visual models from natural language supervision",
    2021 (arXiv:2103.00020), neither scaled nor cut off at zero. ``model`` is a hub id, a folder or an encoder;
    ``long_text`` says what to do with a text over its context, see ``embed_texts``.
    """

    model: str | Encoder = "openai/clip-vit-base-patch32"
    long_text: LongText = "truncate"

    columns: ClassVar[Mapping[str, pa.DataType]] = {"clip_score": pa.float64()}
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[Needs] = "vectors"
    cost: ClassVar[float] = 0.01  # ms an image once its vectors are there, benchmarks/pixel_scorers.py
    why_missing: ClassVar[str] = "no text"

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """float64 in [-1, 1]; NaN for an image without a vector or without a text."""
        cosines, _ = best_texts(batch.image_vectors, batch.parts.image_samples, batch.text_vectors)
        return {"clip_score": pa.array(cosines.round(5), pa.float64())}

    def _batch(self, images: Sequence[Any], texts: Sequence[str | Sequence[str] | None] | None) -> Batch:
        return Batch.from_lists(images, texts, encoder=encoder_of(self.model), long_text=self.long_text)
