"""What holds of every scorer in the table."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Encoder, Scorer
from clipsieve.scorers import COLUMNS, SCORERS, ContentHash, FileBytes, Label


def jpeg(seed: int, size: tuple[int, int]) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise // (seed + 1)).save(file, "JPEG")
    return file.getvalue()


BROKEN = jpeg(0, (40, 40))[:3]
SAMPLES: list[tuple[list[bytes], list[str]]] = [
    ([jpeg(1, (40, 30)), jpeg(2, (20, 50)), BROKEN, jpeg(3, (1, 9))], ["a red ball", "green grass, blue sky"]),
    ([jpeg(4, (33, 33))], []),
    ([], ["only words"]),
    ([BROKEN], ["a red square"]),
    ([jpeg(5, (64, 64)), jpeg(6, (64, 65))], ["green", " "]),
]


def batch_of(samples: list[tuple[list[bytes], list[str]]], encoder: Encoder) -> Batch:
    return Batch.from_lists([images for images, _ in samples], [texts for _, texts in samples], encoder=encoder)


def units(scorer: type[Scorer], batch: Batch) -> int:
    return {"image": batch.images, "pair": len(batch.pairs), "sample": batch.samples}[scorer.unit]


def values(scores: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
    return {name: column.to_numpy(zero_copy_only=False) for name, column in scores.items()}


def example(scorer: type[Any]) -> Any:
    """A scorer with the options that it cannot do without."""
    return scorer(**({"labels": ["red", "green"], "templates": ["{}"]} if scorer is Label else {}))


def missing(column: np.ndarray) -> list[int]:
    return [place for place, value in enumerate(column.tolist()) if value is None or value != value]


every_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.__name__)


@every_scorer
def test_is_a_frozen_keyword_only_dataclass(scorer: type[Any]) -> None:
    made = example(scorer)
    assert isinstance(made, Scorer)
    for field in dataclasses.fields(scorer):
        assert field.kw_only
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'agregate'"):
        scorer(agregate="sum")
    assert scorer.unit in ("image", "pair", "sample")
    assert scorer.reads in ("rows", "bytes", "pixels", "vectors")
    assert scorer.cost > 0
    assert scorer.__doc__


@every_scorer
def test_gives_one_value_a_unit(scorer: type[Any], encoder: Encoder) -> None:
    batch = batch_of(SAMPLES, encoder)

    scores = example(scorer).score(batch)

    assert {name: column.type for name, column in scores.items()} == dict(scorer.columns)
    for column in scores.values():
        assert len(column) == units(scorer, batch)
        assert column.null_count == 0 or not pa.types.is_floating(column.type)


@every_scorer
def test_scores_no_samples_at_all(scorer: type[Any], encoder: Encoder) -> None:
    scores = example(scorer).score(batch_of([], encoder))

    assert {name: len(column) for name, column in scores.items()} == dict.fromkeys(scorer.columns, 0)


@every_scorer
def test_a_broken_image_is_nan_and_its_neighbours_are_not(scorer: type[Any], encoder: Encoder) -> None:
    batch = batch_of([SAMPLES[0]], encoder)
    broken = [2] if scorer.unit == "image" else np.flatnonzero((batch.pairs == 2).any(axis=1)).tolist()
    if scorer.unit == "sample" or scorer in (FileBytes, ContentHash):  # words need no images, nor bytes a meaning
        broken = []

    for column in values(example(scorer).score(batch)).values():
        assert missing(column) == broken


@every_scorer
def test_a_value_is_the_same_alone_and_in_any_batch_and_order(scorer: type[Any], encoder: Encoder) -> None:
    def by_sample(order: list[int]) -> dict[int, list[np.ndarray]]:
        batch = batch_of([SAMPLES[i] for i in order], encoder)
        owners = {
            "image": batch.parts.image_samples,
            "pair": batch.parts.image_samples[batch.pairs[:, 0]],
            "sample": np.arange(batch.samples),
        }[scorer.unit]
        columns = values(example(scorer).score(batch)).values()
        return {sample: [column[owners == place] for column in columns] for place, sample in enumerate(order)}

    together = by_sample([0, 1, 2, 3, 4])
    for order in ([4, 2, 0, 3, 1], [0], [1], [2], [3], [4]):
        for sample, columns in by_sample(order).items():
            for column, other in zip(columns, together[sample], strict=True):
                np.testing.assert_array_equal(column, other)


def test_a_column_leads_to_its_scorer() -> None:
    assert list(COLUMNS) == [
        "words", "image_text_ratio", "file_bytes", "width", "height", "aspect_ratio", "content_hash", "perceptual_hash",
        "blur", "qr_code", "clip_score", "pair_similarity", "label", "label_probability",
    ]  # fmt: skip
    assert all(column in scorer.columns for column, scorer in COLUMNS.items())


def test_scorers_come_without_a_model_library() -> None:
    script = "import sys, clipsieve.scorers; print({'torch', 'transformers'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
