from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import zxingcpp

from clipsieve.core.contracts import Pixels
from clipsieve.core.decode import decode
from clipsieve.scorers import QrCode
from clipsieve.scorers.qr_code import code_areas

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"


def code(side: int, format: zxingcpp.BarcodeFormat = zxingcpp.BarcodeFormat.QRCodeModel2) -> Pixels:
    """A black and white code, ``(side, side, 3)``."""
    made = np.array(zxingcpp.create_barcode("clipsieve", format).to_image(scale=1, add_quiet_zones=False))
    return cv2.cvtColor(cv2.resize(made, (side, side), interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB)


def page(*codes: tuple[int, int, int], width: int = 400, height: int = 300) -> Pixels:
    """A white page with codes, each given by its left, top and side."""
    paper = np.full((height, width, 3), 255, np.uint8)
    for left, top, side in codes:
        paper[top : top + side, left : left + side] = code(side)
    return paper


@pytest.mark.parametrize(
    ("rgb", "largest", "total"),
    [
        (page(), 0, 0),
        (page((50, 50, 105)), 105**2, 105**2),
        (page((20, 20, 84), (200, 60, 168)), 168**2, 84**2 + 168**2),
    ],
    ids=["none", "one", "two"],
)
def test_area_of_the_codes(rgb: Pixels, largest: int, total: int) -> None:
    scores = [QrCode(aggregate=way)([rgb])["qr_code"][0] for way in ("largest", "sum")]

    assert scores == pytest.approx([largest / 120_000, total / 120_000], rel=0.03)


def turned(rgb: Pixels) -> Pixels:
    turn = cv2.getRotationMatrix2D((200, 150), 30, 1)
    return cv2.warpAffine(rgb, turn, (400, 300), borderValue=(255, 255, 255))


def tilted(rgb: Pixels) -> Pixels:
    """Seen from the side: the right edge of the page at 80 % of its height."""
    corners = np.array([(0, 0), (399, 0), (399, 299), (0, 299)], np.float32)
    seen = np.array([(0, 0), (399, 30), (399, 269), (0, 299)], np.float32)
    return cv2.warpPerspective(rgb, cv2.getPerspectiveTransform(corners, seen), (400, 300), borderValue=(255,) * 3)


def noisy(rgb: Pixels) -> Pixels:
    large = cv2.resize(rgb, None, fx=2, fy=2)
    return np.clip(large + np.random.default_rng(0).normal(0, 30, large.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "rel"),
    [
        (turned, 0.03),
        (tilted, 0.25),
        (noisy, 0.05),
        (lambda rgb: 255 - rgb, 0.03),
        (lambda rgb: rgb[:, ::-1].copy(), 0.03),
        (lambda rgb: cv2.GaussianBlur(rgb, (0, 0), 2), 0.05),
    ],
    ids=["turned", "tilted", "noisy", "inverted", "mirrored", "blurred"],
)
def test_codes_as_they_come(change: Callable[[Pixels], Pixels], rel: float) -> None:
    area = QrCode()([change(page((120, 80, 147)))])["qr_code"][0]

    assert area == pytest.approx(147**2 / 120_000, rel=rel)


def test_a_code_that_cannot_be_read_counts() -> None:
    spoilt = page((120, 80, 147))
    spoilt[150:180, 185:215] = 255

    assert QrCode()([spoilt])["qr_code"][0] > 0.1


@pytest.mark.parametrize("format", [zxingcpp.BarcodeFormat.MicroQRCode, zxingcpp.BarcodeFormat.QRCodeModel2])
def test_micro_qr_codes_count_as_well(format: zxingcpp.BarcodeFormat) -> None:
    paper = page()
    paper[50:170, 50:170] = code(120, format)

    assert len(code_areas(paper)) == 1


def test_other_codes_do_not_count() -> None:
    paper = page()
    paper[50:170, 50:170] = code(120, zxingcpp.BarcodeFormat.DataMatrix)

    assert code_areas(paper) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (5000, 1, 3)])
def test_thin_images_have_none(shape: tuple[int, int, int]) -> None:
    assert code_areas(np.zeros(shape, np.uint8)) == []


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(ValueError, match="aggregate is 'largest' or 'sum', not 'most'"):
        QrCode(aggregate="most")  # type: ignore[arg-type]


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not part of the repository")
def test_recall_and_false_finds_on_photographs() -> None:
    """At least 24 of 26 photographs with a code are found, and none of 97 without."""
    labels = json.loads((PHOTOS / "qr" / "labels.json").read_text())

    found = [bool(code_areas(decode((PHOTOS / label["file"]).read_bytes()))) for label in labels]
    false = [bool(code_areas(decode(path.read_bytes()))) for path in sorted((PHOTOS / "images").iterdir())]

    assert (len(found), len(false)) == (26, 97)
    assert sum(found) >= 24
    assert sum(false) == 0
