"""``qr_code``: how much of an image a QR code covers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa
import zxingcpp

from clipsieve.core.batch import Batch
from clipsieve.scorers.base import OnLists

if TYPE_CHECKING:
    from clipsieve.core.contracts import Needs, Pixels, Unit


@dataclass(frozen=True, kw_only=True)
class QrCode(OnLists):
    """Area of the QR codes in an image over the image area, between 0 (none found) and 1.

    ``aggregate`` takes the largest code, since that is what a picture may be about, or the sum of all of them.
    """

    aggregate: Literal["largest", "sum"] = "largest"

    columns: ClassVar[Mapping[str, pa.DataType]] = {"qr_code": pa.float64()}
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[Needs] = "pixels"
    cost: ClassVar[float] = 0.5  # ms at 640 x 480, benchmarks/pixel_scorers.py

    def __post_init__(self) -> None:
        if self.aggregate not in ("largest", "sum"):
            raise ValueError(f"aggregate is 'largest' or 'sum', not {self.aggregate!r}")

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """float64, a fraction of the image; NaN for an image that cannot be decoded."""
        values = [math.nan if rgb is None else self._covered(rgb) for rgb in batch.pixels]
        return {"qr_code": pa.array(values, pa.float64())}

    def _covered(self, rgb: Pixels) -> float:
        areas = code_areas(rgb)
        covered = sum(areas) if self.aggregate == "sum" else max(areas, default=0.0)
        return min(covered / rgb[..., 0].size, 1.0)


def code_areas(rgb: Pixels) -> list[float]:
    """Area of each QR code's quadrilateral in pixels, of ``(h, w, 3)`` uint8: QR, Micro QR and rMQR.

    Codes that are found but cannot be read (blurred, damaged, behind glare) count too: they are codes to whoever
    looks at the picture. Rotated, inverted and, by a second look at half the size, noisy ones are found as well.
    """
    codes = zxingcpp.read_barcodes(
        cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY),
        formats=zxingcpp.BarcodeFormat.QRCode,
        text_mode=zxingcpp.TextMode.Plain,
        try_rotate=True,
        try_invert=True,
        try_downscale=True,
        return_errors=True,
    )
    return [_area(code.position) for code in codes]


def _area(position: zxingcpp.Position) -> float:
    corners = (position.top_left, position.top_right, position.bottom_right, position.bottom_left)
    return float(cv2.contourArea(np.array([(corner.x, corner.y) for corner in corners], dtype=np.int32)))
