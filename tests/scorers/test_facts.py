from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsieve.scorers import FileBytes, Size


def encode(width: int, height: int, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG", **options)
    return file.getvalue()


def sideways() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


@pytest.mark.parametrize(
    ("image", "width", "height", "aspect_ratio"),
    [
        (encode(300, 200), 300, 200, 1.5),
        (encode(300, 200, exif=sideways()), 200, 300, 2 / 3),
        (encode(300, 200)[:-20], 300, 200, 1.5),
        (np.zeros((4, 8, 3), np.uint8), 8, 4, 2),
        (Image.new("L", (8, 4)), 8, 4, 2),
        (b"no image", np.nan, np.nan, np.nan),
        ("missing.jpg", np.nan, np.nan, np.nan),
    ],
    ids=["jpeg", "rotated", "truncated", "array", "pillow", "not an image", "missing"],
)
def test_size(image: Any, width: float, height: float, aspect_ratio: float) -> None:
    scores = Size()([image])

    found = [scores[name][0] for name in ("width", "height", "aspect_ratio")]
    assert found == pytest.approx([width, height, aspect_ratio], nan_ok=True)


def test_file_bytes() -> None:
    images = [b"no image", encode(300, 200), "missing.jpg", Image.new("L", (8, 4))]

    assert FileBytes()(images)["file_bytes"].tolist() == pytest.approx(
        [8, len(encode(300, 200)), np.nan, np.nan], nan_ok=True
    )
