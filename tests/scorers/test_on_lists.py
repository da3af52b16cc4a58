"""Scorers called on plain lists, and on ``datasets.Dataset`` through ``map``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from clipsieve.core.contracts import Encoder, Pixels
from clipsieve.scorers import Blur, ClipScore, ImageTextRatio, Size

NOISE: Pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "noise.png").write_bytes(png())
    return str(tmp_path / "noise.png")


def test_an_image_is_a_path_bytes_a_pillow_image_or_an_array(path: str) -> None:
    scores = Blur()([path, png(), {"bytes": png(), "path": None}, Image.open(path), NOISE])["blur"]

    assert scores.dtype == np.float64
    assert len(set(scores.tolist())) == 1


def test_a_broken_pillow_image_costs_its_neighbours_nothing() -> None:
    torn = Image.open(io.BytesIO(png()[:-200]))

    assert np.isnan(Blur()([NOISE, torn, NOISE])["blur"]).tolist() == [False, True, False]


def test_as_many_texts_as_images() -> None:
    with pytest.raises(ValueError, match="as many texts as images are needed, got 1 for 2"):
        ImageTextRatio()([NOISE, NOISE], ["one"])


@pytest.mark.parametrize("decoded", [True, False])
def test_map_over_an_image_feature(path: str, decoded: bool) -> None:
    images = datasets.Dataset.from_dict({"image": [path, path]}).cast_column("image", datasets.Image(decode=decoded))

    scored = images.map(Blur(), input_columns="image", batched=True)

    assert scored["blur"][:] == Blur()([path, path])["blur"].tolist()
    assert scored.column_names == ["image", "blur"]


@pytest.mark.parametrize("image", ["path", "bytes"])
def test_map_over_paths_and_bytes(path: str, image: str) -> None:
    images = datasets.Dataset.from_dict({"image": [path if image == "path" else png()] * 3})

    scored = images.map(Size(), input_columns="image", batched=True, batch_size=2)

    assert scored["aspect_ratio"][:] == [1.5] * 3


def test_map_over_images_and_texts(path: str, encoder: Encoder) -> None:
    rows: dict[str, list[Any]] = {"image": [path, path], "text": ["red green blue", None]}

    scored = datasets.Dataset.from_dict(rows).map(
        ClipScore(model=encoder), input_columns=["image", "text"], batched=True
    )

    assert scored["clip_score"][:] == pytest.approx([0.99, np.nan], abs=0.01, nan_ok=True)
