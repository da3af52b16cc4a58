"""``perceptual_hash``: 64 bits that stay nearly the same when an image is resized, recompressed or lit otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.scorers.base import OnLists

if TYPE_CHECKING:
    from clipsieve.core.contracts import Needs, Pixels, Unit

SIDE = 32
"""Pixels of a side to which the image is reduced, whatever its shape."""

LOW = 8
"""Of its cosine transform, the coefficients of so many lowest frequencies each way are kept."""


@dataclass(frozen=True, kw_only=True)
class PerceptualHash(OnLists):
    """The DCT hash of an image as 16 hexadecimal digits, to be compared by the number of bits that differ.

    Grey levels of the image at 32 x 32, their cosine transform, and of its 8 x 8 lowest frequencies whether each lies
    above their median, row by row. Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", 2010, section 3.2.1.
    """

    columns: ClassVar[Mapping[str, pa.DataType]] = {"perceptual_hash": pa.string()}
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[Needs] = "pixels"
    cost: ClassVar[float] = 0.3  # ms at 640 x 480, benchmarks/pixel_scorers.py

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """string; null for an image that cannot be decoded."""
        hashes = [None if rgb is None else f"{dct_hash(rgb):016x}" for rgb in batch.pixels]
        return {"perceptual_hash": pa.array(hashes, pa.string())}


def dct_hash(rgb: Pixels) -> int:
    """The 64 bits of ``(h, w, 3)`` uint8, the lowest frequency first."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    # Rounded, so that what is zero but for the last bits of the transform counts as zero on every machine.
    low = cv2.dct(small)[:LOW, :LOW].round(6)
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
