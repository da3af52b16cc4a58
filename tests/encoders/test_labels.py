"""Labels have the probabilities that transformers' zero-shot pipeline gives on the same weights."""

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from clipsieve import Label
from tests.encoders.test_parity import drawn

LABELS = ["cat", "a red bus", "Zürich at night", "dog"]
TEMPLATE = "a photo of a {}"


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_probabilities_are_those_of_the_pipeline(kind, folders):
    folder = str(folders[kind])
    images = [Image.fromarray(drawn(*shape)) for shape in ((300, 200), (224, 224), (90, 333))]
    theirs = pipeline("zero-shot-image-classification", model=folder, use_fast=False)(
        images, candidate_labels=LABELS, hypothesis_template=TEMPLATE
    )

    ours = Label(labels=LABELS, templates=[TEMPLATE], all=True, model=folder)(images)

    assert ours["label"].tolist() == [ranked[0]["label"] for ranked in theirs]
    for mine, ranked in zip(ours["label_probabilities"], theirs, strict=True):
        expected = {pair["label"]: pair["score"] for pair in ranked}
        found = {pair["label"]: pair["probability"] for pair in mine}
        assert list(found) == sorted(found, key=lambda label: -found[label])
        np.testing.assert_allclose([found[label] for label in LABELS], [expected[label] for label in LABELS], atol=1e-5)
        assert (kind == "clip") == (abs(sum(found.values()) - 1) < 1e-4)
