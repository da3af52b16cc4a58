"""Small pictures of images, for contact sheets, indexes and pages."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image as PILImage

if TYPE_CHECKING:
    from clipsieve.core.contracts import Pixels

SIDE = 192
"""Longest side in pixels: sharp at the width of a gallery's tile, about 8 kB as JPEG."""


def thumbnail(pixels: Pixels, side: int = SIDE) -> PILImage.Image:
    """``(h, w, 3)`` uint8 RGB as an image whose longest side is at most ``side``, its shape kept."""
    image = PILImage.fromarray(pixels)
    image.thumbnail((side, side))
    return image


def thumbnail_jpeg(pixels: Pixels, side: int = SIDE) -> bytes:
    """The thumbnail as JPEG bytes."""
    return as_jpeg(thumbnail(pixels, side))


def as_jpeg(image: PILImage.Image) -> bytes:
    """A thumbnail as JPEG bytes."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
