from __future__ import annotations

import cv2
import numpy as np
import pytest

from clipsieve.core.contracts import Pixels
from clipsieve.scorers import Blur, blur
from clipsieve.scorers.blur import laplacian_variance


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def checkerboard(height: int, width: int) -> Pixels:
    """The largest differences that bytes can have."""
    board = (np.indices((height, width)).sum(axis=0) % 2 * 255).astype(np.uint8)
    return np.repeat(board[..., None], 3, axis=2)


@pytest.mark.parametrize(
    "rgb",
    [
        noise(1, 1), noise(1, 5000), noise(5000, 1), noise(2, 2), noise(3, 7), noise(480, 640),
        checkerboard(300, 301), np.full((50, 60, 3), 200, np.uint8), noise(40, 60)[::2, ::2],
    ],
    ids=lambda rgb: f"{rgb.shape[1]}x{rgb.shape[0]}",
)  # fmt: skip
def test_equals_the_variance_in_float64(rgb: Pixels) -> None:
    assert laplacian_variance(rgb) == pytest.approx(cv2.Laplacian(rgb, cv2.CV_64F).var(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("tile_pixels", [1, 61, 62, 1000, 5000])
def test_tiles_leave_no_seam(tile_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = noise(100, 61)
    whole = laplacian_variance(rgb)

    monkeypatch.setattr(blur, "TILE_PIXELS", tile_pixels)

    assert laplacian_variance(rgb) == whole


def test_a_sharp_image_scores_above_its_blurred_copy() -> None:
    sharp = noise(64, 64)
    soft = cv2.GaussianBlur(sharp, (0, 0), 3)
    flat = np.zeros((64, 64, 3), np.uint8)

    scores = Blur()([sharp, soft, flat])["blur"]

    assert scores[0] > 100 > scores[1] > scores[2] == 0
