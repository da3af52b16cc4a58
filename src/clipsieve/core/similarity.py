"""Cosines between the images and texts of a sample; vectors are of unit length, so a cosine is a dot product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipsieve.core.embed import TextVectors
from clipsieve.core.layout import Mask

if TYPE_CHECKING:
    from clipsieve.core.contracts import Vectors


def best_texts(
    images: Vectors, image_samples: npt.NDArray[np.int64], texts: TextVectors
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """For each image the highest cosine to a text of its sample, ``(n,)``, and that text's row, ``(n,)``.

    NaN and -1 for an image without a vector or without a text. ``image_samples`` and ``texts.samples`` ascend.
    One product a sample: the result of a sample does not depend on its neighbours.
    """
    cosines = np.full(len(images), np.nan)
    rows = np.full(len(images), -1, dtype=np.int64)
    present: Mask = np.asarray(~np.isnan(images).any(axis=1), dtype=bool)
    samples = np.unique(image_samples[present])
    image_ends = np.searchsorted(image_samples, [samples, samples + 1]).T.tolist()
    text_ends = np.searchsorted(texts.samples, [samples, samples + 1]).T.tolist()
    for (first, last), (start, stop) in zip(image_ends, text_ends, strict=True):
        if start == stop:
            continue
        found = images[first:last].astype(np.float64) @ texts.vectors[start:stop].T.astype(np.float64)
        best = found.argmax(axis=1)
        here = present[first:last]
        cosines[first:last][here] = np.clip(found.max(axis=1), -1.0, 1.0)[here]
        rows[first:last][here] = best[here] + start
    return cosines, rows
