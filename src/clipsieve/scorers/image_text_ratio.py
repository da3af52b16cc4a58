"""``image_text_ratio``: images a word of a sample; high in image dumps, low in text dumps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.scorers.base import OnLists
from clipsieve.scorers.facts import word_counts

if TYPE_CHECKING:
    from clipsieve.core.contracts import Needs, Unit


@dataclass(frozen=True, kw_only=True)
class ImageTextRatio(OnLists):
    """Images over words, or over 1 for a sample without words; words by white space over all texts of the sample.

    ``count`` takes the images of the source, or only those that are kept by the rules listed before.
    """

    count: Literal["source", "kept"] = "source"

    columns: ClassVar[Mapping[str, pa.DataType]] = {"image_text_ratio": pa.float64()}
    unit: ClassVar[Unit] = "sample"
    reads: ClassVar[Needs] = "rows"
    cost: ClassVar[float] = 0.001  # ms a row, benchmarks/pixel_scorers.py

    def __post_init__(self) -> None:
        if self.count not in ("source", "kept"):
            raise ValueError(f"count is 'source' or 'kept', not {self.count!r}")

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """float64, images a word; never NaN."""
        counted = ~batch.parts.surplus_images
        if self.count == "kept":
            counted &= batch.alive
        images = np.bincount(batch.parts.image_samples[counted], minlength=batch.samples)
        return {"image_text_ratio": pa.array(images / np.maximum(word_counts(batch), 1), pa.float64())}
