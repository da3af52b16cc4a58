"""Preprocessing settings are reproduced or refused; the pixels themselves are compared in test_parity.py."""

import json

import numpy as np
import pytest
from PIL import Image

from clipsieve.encoders.preprocess import Preprocessing, read_preprocessing
from clipsieve.errors import ModelError

CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True, "size": {"shortest_edge": 224}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2],
}  # fmt: skip


def read(folder, **changes):
    (folder / "preprocessor_config.json").write_text(json.dumps({**CLIP, **changes}))
    return read_preprocessing(folder, "m")


def test_clip(tmp_path):
    assert read(tmp_path) == Preprocessing(
        height=224,
        width=224,
        shortest_edge=224,
        resample=Image.Resampling.BICUBIC,
        scale=1 / 255,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.2),
    )


def test_steps_that_are_off(tmp_path):
    plain = read(tmp_path, do_rescale=False, do_normalize=False)
    assert (plain.scale, plain.mean, plain.std) == (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_exact_size(tmp_path):
    exact = read(tmp_path, size={"height": 256, "width": 128}, do_center_crop=False, resample=2)
    assert (exact.shortest_edge, exact.height, exact.width) == (None, 256, 128)
    assert exact.prepare(np.zeros((3, 9, 3), dtype=np.uint8)).shape == (256, 128, 3)


def test_numbers_for_sizes_and_old_class_names(tmp_path):
    old = {"size": 224, "crop_size": 224, "feature_extractor_type": "CLIPFeatureExtractor"}
    assert read(tmp_path, **old) == read(tmp_path)
    assert read(tmp_path, image_processor_type="CLIPImageProcessorFast") == read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"do_pad": True}, "sets do_pad"),
        ({"crop_pct": 0.875}, "sets crop_pct"),
        ({"do_resize": False}, "does not resize"),
        ({"do_center_crop": False}, "crops to None"),
        ({"size": {"shortest_edge": 224, "longest_edge": 400}}, "resizes to"),
        ({"size": {"height": 256, "width": 256}}, "resizes to"),
        ({"resample": 0}, "resizes by nearest"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "NaFlex"),
        ({"image_processor_type": "ConvNextImageProcessor"}, "ConvNextImageProcessor"),
        ({"image_processor_type": "NoSuchProcessor"}, "preprocessing"),
    ],
)
def test_refused(changes, said, tmp_path):
    with pytest.raises(ModelError, match=said) as refusal:
        read(tmp_path, **changes)
    assert "\n" not in str(refusal.value)


def test_an_image_smaller_than_the_crop_stands_on_black(tmp_path):
    prepared = read(tmp_path, size={"shortest_edge": 221}).prepare(np.full((50, 50, 3), 200, dtype=np.uint8))
    assert prepared.shape == (224, 224, 3)
    shown = prepared.any(axis=2)
    assert shown[2:223, 2:223].all()
    assert shown.sum() == 221 * 221


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1)])
def test_a_line_is_prepared_like_any_image(shape, tmp_path):
    preprocessing = read(tmp_path)
    line = np.random.default_rng(0).integers(0, 256, (5000, 3), dtype=np.uint8)
    prepared = preprocessing.prepare(line.reshape(*shape, 3))
    # Whole, it would be 224 x 1,120,000. Its middle shows two pixels; 100 pixels around them give the same.
    assert (prepared == preprocessing.prepare(line[2450:2550].reshape(*[min(edge, 100) for edge in shape], 3))).all()
    assert (np.ptp(prepared, axis=shape.index(1)) == 0).all()
