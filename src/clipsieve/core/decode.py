"""From encoded bytes to RGB pixels; the only decoder, with its limits, EXIF rotation and odd modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage

if TYPE_CHECKING:
    from clipsieve.core.contracts import Pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Width and height in pixels after EXIF rotation, and the format's name (``JPEG``)."""

    width: int
    height: int
    format: str


def read_header(data: bytes) -> Header:
    raise NotImplementedError


def decode(data: bytes, *, frame: int = 0) -> Pixels:
    raise NotImplementedError


def to_rgb(image: PILImage.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))
