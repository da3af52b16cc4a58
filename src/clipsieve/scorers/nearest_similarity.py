"""``nearest_similarity``: how alike an image and the most similar other image of the data set are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.dedup.semantic import Method, semantic

if TYPE_CHECKING:
    from clipsieve.core.contracts import Unit, Vectors, VectorsOf

IDENTICAL = 1.0
"""The cosine of what the search links: no images are removed here, so it need not look for near duplicates."""


@dataclass(frozen=True, kw_only=True)
class NearestSimilarity:
    """Highest cosine between an image and any other image, at 5 decimals; see ``clipsieve.dedup.semantic``.

    ``method`` is ``exact``, ``approximate`` (each image is held against those of 48 clusters near it, and the value may
    be too low), or ``auto``: exact for up to 500,000 images.
    """

    method: Method = "auto"

    columns: ClassVar[Mapping[str, pa.DataType]] = {"nearest_similarity": pa.float64()}
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[tuple[VectorsOf, ...]] = ("image",)
    why_missing: ClassVar[str] = "no other image to compare it with, or it cannot be read"

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method is auto, exact or approximate, not {self.method!r}")

    def __call__(self, images: Vectors) -> dict[str, npt.NDArray[Any]]:
        """Scores ``images`` ``(n, dim)``, of any length; NaN for a row of NaN, infinity or zeros."""
        return {name: column.to_numpy() for name, column in self.score([images]).items()}

    def score(
        self, vectors: Sequence[Vectors], progress: Callable[[int, int], None] | None = None
    ) -> Mapping[str, pa.Array]:
        """float64 in [-1, 1]; NaN for an image without a vector, and for the only one with a vector."""
        (images,) = vectors
        found = semantic(images, IDENTICAL, method=self.method, progress=progress)
        return {"nearest_similarity": pa.array(np.asarray(found.max_similarity), pa.float64())}
