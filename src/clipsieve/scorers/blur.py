"""``blur``: how sharp an image is, as the variance of its Laplacian; a flat or blurred image has little."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import cv2
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.scorers.base import OnLists

if TYPE_CHECKING:
    from clipsieve.core.contracts import Needs, Pixels, Unit

TILE_PIXELS = 2**18
"""Pixels a tile: 1.5 MB of differences, which stay in the cache and keep memory small beside a huge image."""


@dataclass(frozen=True, kw_only=True)
class Blur(OnLists):
    """Variance of OpenCV's 3x3 Laplacian over the 8-bit RGB image, all three channels together; higher is sharper.

    Equal to ``cv2.Laplacian(rgb, cv2.CV_64F).var()``. Source: Pech-Pacheco et al., "Diatom autofocusing in
    brightfield microscopy", ICPR 2000, section 2.4.
    """

    columns: ClassVar[Mapping[str, pa.DataType]] = {"blur": pa.float64()}
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[Needs] = "pixels"
    cost: ClassVar[float] = 0.3  # ms at 640 x 480, benchmarks/pixel_scorers.py

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """float64, in squared 8-bit levels; NaN for an image that cannot be decoded."""
        values = [math.nan if rgb is None else laplacian_variance(rgb) for rgb in batch.pixels]
        return {"blur": pa.array(values, pa.float64())}


def laplacian_variance(rgb: Pixels) -> float:
    """Variance of the 3x3 Laplacian over all pixels and channels of ``(h, w, 3)`` uint8.

    A Laplacian of bytes lies within +-1020, so that 16 bits hold it and its sums are integers: the variance is
    exact up to its last division, and several times faster than in float64.
    """
    height, width = rgb.shape[:2]
    rows = max(1, TILE_PIXELS // width)
    total = squares = 0
    for top in range(0, height, rows):
        # A row more on either side, so that tiles meet without a border of their own.
        first = max(top - 1, 0)
        tile = cv2.Laplacian(rgb[first : top + rows + 1], cv2.CV_16S)[top - first : top - first + rows]
        values = tile.reshape(1, -1)
        total += round(cv2.sumElems(values)[0])
        squares += round(cv2.norm(values, cv2.NORM_L2SQR))
    return (squares * rgb.size - total * total) / rgb.size**2
