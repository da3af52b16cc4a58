"""Prompts of scorers go through the model once a run, and rules read what came of them."""

from __future__ import annotations

import pyarrow as pa

from tests.engines.conftest import Curate
from tests.engines.killed import LAYOUT
from tests.fakes import ColourEncoder, image_bytes

COLOURS = ["red", "green", "blue"]
IMAGES = [image_bytes("red"), image_bytes("blue"), b"broken", image_bytes("green")]


def test_rules_keep_by_label_and_probability(curate: Curate) -> None:
    table = pa.table({"id": list("abcd"), "image": IMAGES, "caption": [None] * 4})
    encoder = ColourEncoder()
    ledger = curate(
        table, LAYOUT, 'label in (red, "green") and label_probability >= 0.6', rows_a_shard=1, encoder=encoder,
        scores={"label": {"labels": COLOURS, "templates": ["{}"]}},
    )  # fmt: skip
    assert ledger["verdict"].to_pylist() == ["kept", "dropped", "failed", "kept"]
    assert ledger["reason"].to_pylist()[1] == "label blue not in (red, green)"
    assert ledger["label"].to_pylist() == ["red", "blue", None, "green"]
    assert encoder.text_batches == [["red", "blue", "green"]]  # once, and not once a shard


def test_all_probabilities_reach_the_ledger(curate: Curate) -> None:
    table = pa.table({"id": list("abcd"), "image": IMAGES, "caption": [None] * 4})
    ledger = curate(table, LAYOUT, scores={"label": {"labels": COLOURS, "templates": ["{}"], "all": True}})
    ranked = ledger["label_probabilities"].to_pylist()
    assert [pairs and pairs[0]["label"] for pairs in ranked] == ledger["label"].to_pylist()


def test_an_image_that_was_dropped_before_is_not_labelled(curate: Curate) -> None:
    table = pa.table({"id": ["a", "b"], "image": [image_bytes("red", sharp=False), IMAGES[1]], "caption": [None] * 2})
    scores = {"label": {"labels": COLOURS, "templates": ["{}"]}}
    ledger = curate(table, LAYOUT, "blur >= 100", scores=scores)
    assert ledger["label"].to_pylist() == [None, "blue"]
    assert ledger["label_probability"].to_pylist()[0] is None
