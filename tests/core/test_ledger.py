"""The ledger: its rows in input order, its tri-state scores, and counts that add up."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from clipsieve.core import ledger
from clipsieve.core.decide import Geometry, Verdicts
from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout, parts
from clipsieve.core.ledger import Score


def rows(*cells: tuple[str, str, str | None]) -> pa.Table:
    """Interleaved rows from (sample_id, modality, content)."""
    listed = [
        {"sample_id": i, "position": 0, "modality": m, "text_content": c if m == "text" else None} for i, m, c in cells
    ]
    return pa.Table.from_pylist(listed, schema=INTERLEAVED_SCHEMA)


def test_a_part_has_a_row_an_image_and_one_for_a_sample_without_images() -> None:
    found = parts(
        rows(("a", "image", None), ("a", "image", None), ("b", "text", "only text"), ("c", "image", None)),
        Layout(kind="interleaved"),
    )
    verdicts = Verdicts(
        Geometry(
            samples=3,
            image_samples=found.image_samples,
            pairs=np.array([[0, 1]]),
            has_text=np.array([False, True, False]),
        )
    )
    verdicts.fail({2: "empty: 0 bytes"}, "drop")
    verdicts.drop_images(np.array([1]), "blur >= 100", ["blur 5 < 100"], whole_sample=False)
    blur = Score.empty("image", pa.float64(), 3)
    blur.put(np.array([0, 1]), pa.array([150.0, 5.0]))
    words = Score.empty("sample", pa.float64(), 3)
    words.put(np.arange(3), pa.array([0.0, 2.0, math.nan]))
    pair = Score.empty("pair", pa.float64(), 1)
    pair.put(np.array([0]), pa.array([0.5]))
    table = ledger.part(
        shard=7, first_row=10, first_sample=20, parts=found, verdicts=verdicts, errors={2: "empty: 0 bytes"},
        scores={"blur": blur, "words": words, "pair_similarity": pair},
    )  # fmt: skip
    keys = table.select(["shard", "row", "image", "sample", "sample_id"])
    assert [tuple(row.values()) for row in keys.to_pylist()] == [
        (7, 10, 0, 20, "a"),
        (7, 11, 1, 20, "a"),
        (7, 12, None, 21, "b"),
        (7, 13, 0, 22, "c"),
    ]
    assert [tuple(row.values()) for row in table.select(["verdict", "reason", "error"]).to_pylist()] == [
        ("kept", None, None),
        ("dropped", "blur 5 < 100", None),
        ("kept", None, None),
        ("failed", None, "empty: 0 bytes"),
    ]
    assert table["sample_verdict"].to_pylist() == ["kept", "kept", "kept", "failed"]
    assert table["blur"].to_pylist() == [150.0, 5.0, None, None]
    assert table["words"].to_pylist()[:3] == [0.0, 0.0, 2.0]
    assert math.isnan(table["words"][3].as_py())
    assert table["pair_similarity"].to_pylist() == [[0.5], [], [], []]

    counts = ledger.count(table)
    assert (counts.images.total, counts.images.kept, counts.images.dropped, counts.images.failed) == (3, 1, 1, 1)
    assert (counts.samples.total, counts.samples.kept, counts.samples.failed) == (3, 2, 1)
    assert counts.dropped_by == {"blur >= 100": 1}
    assert counts.errors == {"empty: 0 bytes": 1}
