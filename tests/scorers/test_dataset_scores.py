"""Scores of a whole data set, held against plain loops over all pairs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve import NearestSimilarity, NegClipLoss
from clipsieve.core.contracts import DatasetScorer
from clipsieve.scorers import COLUMNS, DATASET_COLUMNS, DATASET_SCORERS, neg_clip_loss

Vectors = npt.NDArray[np.floating]

ROUNDED = 0.5e-5 + 1e-6
"""How far a value of 5 decimals may lie from one that is not rounded, with the noise of float32."""


def pairs(count: int, dim: int = 8, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Images and texts as float32 unit vectors; a text is somewhat like its image."""
    random = np.random.default_rng(seed)
    images = random.normal(size=(count, dim))
    return unit(images), unit(images + random.normal(size=(count, dim)))


def unit(vectors: Vectors) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def naive_neg_clip_loss(images: Vectors, texts: Vectors, of: NegClipLoss) -> list[float]:
    """The formula, a pair at a time, in Python's own arithmetic."""
    total = [0.0] * len(images)
    random = np.random.default_rng(of.seed)
    for _ in range(of.passes):
        for batch in np.array_split(random.permutation(len(images)), math.ceil(len(images) / of.batch_size)):
            for i in batch:
                cosine = float(images[i].astype(float) @ texts[i])
                # Each exponent relative to that of the pair itself, so that none is too large.
                by_text = sum(math.exp((float(images[i].astype(float) @ texts[j]) - cosine) / of.tau) for j in batch)
                by_image = sum(math.exp((float(images[j].astype(float) @ texts[i]) - cosine) / of.tau) for j in batch)
                total[i] += -of.tau / 2 * (math.log(by_text) + math.log(by_image))
    return [value / of.passes for value in total]


def naive_nearest(images: Vectors) -> list[float]:
    exact = images.astype(float)
    return [max((float(a @ b) for j, b in enumerate(exact) if j != i), default=math.nan) for i, a in enumerate(exact)]


# What holds of every one in the table.

every_scorer = pytest.mark.parametrize("scorer", DATASET_SCORERS, ids=lambda scorer: scorer.__name__)


def inputs(scorer: type[DatasetScorer], images: Vectors, texts: Vectors) -> list[Vectors]:
    return [{"image": images, "text": texts}[of] for of in scorer.reads]


def score(scorer: type[DatasetScorer], images: Vectors, texts: Vectors, **options: Any) -> npt.NDArray[np.float64]:
    (column,) = scorer(**options).score(inputs(scorer, images, texts)).values()
    values: npt.NDArray[np.float64] = column.to_numpy()
    return values


@every_scorer
def test_is_a_frozen_keyword_only_dataclass_whose_options_have_defaults(scorer: type[Any]) -> None:
    made = scorer()
    assert isinstance(made, DatasetScorer)
    assert all(field.kw_only and field.default is not dataclasses.MISSING for field in dataclasses.fields(scorer))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(scorer)[0].name, None)
    assert scorer.unit == "image"
    assert set(scorer.reads) <= {"image", "text"}
    assert scorer.why_missing
    assert scorer.__doc__


@every_scorer
def test_gives_a_rounded_value_an_image_and_is_called_on_plain_arrays(scorer: type[Any]) -> None:
    vectors = inputs(scorer, *pairs(30))

    scores = scorer().score(vectors)

    assert {name: column.type for name, column in scores.items()} == dict(scorer.columns)
    for name, values in scorer()(*vectors).items():
        assert values.tolist() == scores[name].to_pylist()
        assert values.tolist() == values.round(5).tolist()
        assert len(values) == 30
        assert not np.signbit(values[values == 0]).any()


@every_scorer
def test_a_row_without_a_direction_is_nan_and_decides_nothing_of_the_others(scorer: type[DatasetScorer]) -> None:
    images, texts = pairs(20)
    expected = score(scorer, images, texts)
    for hole in (np.nan, np.inf, 0.0):
        with_holes = [np.insert(of, [0, 6, 6, 20], hole, axis=0) for of in (images, texts)]
        found = score(scorer, with_holes[0], with_holes[1])
        assert np.flatnonzero(np.isnan(found)).tolist() == [0, 7, 8, 23]
        assert found[~np.isnan(found)].tolist() == expected.tolist()


@every_scorer
def test_scores_no_images_at_all(scorer: type[DatasetScorer]) -> None:
    assert score(scorer, *pairs(0)).tolist() == []


@every_scorer
def test_lengths_do_not_matter_nor_whether_vectors_lie_on_disk(scorer: type[DatasetScorer], tmp_path: Path) -> None:
    images, texts = pairs(50)
    expected = score(scorer, images, texts)
    mapped = []
    for name, of in (("images", images), ("texts", texts)):
        np.save(tmp_path / f"{name}.npy", of)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    assert score(scorer, mapped[0], mapped[1]).tolist() == expected.tolist()
    np.testing.assert_allclose(score(scorer, images * 3, texts * 0.5), expected, atol=1.1e-5)


@every_scorer
def test_progress_counts_to_its_total(scorer: type[DatasetScorer]) -> None:
    told: list[tuple[int, int]] = []
    # More than what is compared at once without steps.
    scorer().score(inputs(scorer, *pairs(9000, 4)), lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))
    assert len({total for _, total in told}) == 1


def test_a_column_leads_to_its_scorer() -> None:
    assert list(DATASET_COLUMNS) == ["neg_clip_loss", "nearest_similarity"]
    assert not set(DATASET_COLUMNS) & set(COLUMNS)


# neg_clip_loss


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40), dim=st.integers(2, 12), data=st.integers(0, 2**32),
    tau=st.sampled_from([0.01, 0.05, 1.0]), batch_size=st.integers(2, 50), passes=st.integers(1, 3),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_it_is_the_formula(
    count: int, dim: int, data: int, tau: float, batch_size: int, passes: int, seed: int
) -> None:
    images, texts = pairs(count, dim, data)
    scorer = NegClipLoss(tau=tau, batch_size=batch_size, passes=passes, seed=seed)

    found = scorer(images, texts)["neg_clip_loss"]

    np.testing.assert_allclose(found, naive_neg_clip_loss(images, texts, scorer), rtol=0, atol=ROUNDED)
    assert (found <= 0).all()


def test_a_pair_among_others_by_hand() -> None:
    """Two images, each like its text (0.8) and not like the other's (0.6): with tau 0.1 log(1 + exp(-2)) is lost."""
    images = np.eye(2, dtype=np.float32)
    texts = np.array([[0.8, 0.6], [0.6, 0.8]], dtype=np.float32)
    assert NegClipLoss(tau=0.1)(images, texts)["neg_clip_loss"].tolist() == [-0.01269, -0.01269]
    assert round(-0.1 * math.log(1 + math.exp(-2)), 5) == -0.01269


@pytest.mark.parametrize(("rows", "columns", "threads"), [(1, 1, 1), (7, 300, 3), (512, 64, 2)])
def test_blocks_and_threads_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, threads: int
) -> None:
    images, texts = pairs(200)
    expected = NegClipLoss(batch_size=70)(images, texts)["neg_clip_loss"]
    monkeypatch.setattr(neg_clip_loss, "ROWS", rows)
    monkeypatch.setattr(neg_clip_loss, "COLUMNS", columns)
    monkeypatch.setattr(neg_clip_loss, "cores", lambda: threads)
    found = NegClipLoss(batch_size=70)(images, texts)["neg_clip_loss"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.1e-5)  # one step of the last decimal
    assert (found == expected).mean() > 0.9


@pytest.mark.parametrize("tau", [1e-6, 1e-3, 1.0, 1e3])
def test_no_exponent_is_too_large(tau: float) -> None:
    """Texts that point away from their images, and towards two others: exponents up to two millions apart."""
    images = np.repeat(np.array([[1, 0], [-1, 0], [0, 1]], dtype=np.float32), 2, axis=0)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = NegClipLoss(tau=tau)(images, -images)["neg_clip_loss"]
    expected = -2 - tau * math.log(2 * (1 + math.exp(-1 / tau) + math.exp(-2 / tau)))
    assert found[0] == pytest.approx(expected, abs=2e-5 * max(1, tau))


def test_the_seed_decides_the_batches_and_one_batch_needs_no_luck() -> None:
    images, texts = pairs(100)

    def found(**options: Any) -> list[float]:
        values: list[float] = NegClipLoss(**options)(images, texts)["neg_clip_loss"].tolist()
        return values

    assert found(batch_size=30) == found(batch_size=30)
    assert found(batch_size=30) != found(batch_size=30, seed=1)
    assert found(batch_size=30) != found(batch_size=30, passes=9)
    assert found() == found(seed=1) == found(passes=1, batch_size=100)


def test_batches_are_as_equal_as_can_be() -> None:
    scorer = NegClipLoss(batch_size=32, passes=2)
    sizes = [len(batch) for batch in scorer._batches(np.arange(100), 4, 2)]
    assert sizes == [25] * 8
    assert np.concatenate(list(scorer._batches(np.arange(3, 10), 2, 1))).tolist() != list(range(3, 10))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": 0}, "tau is a number from 1e-6 to 1e6, not 0"),
        ({"tau": math.nan}, "tau is a number from 1e-6 to 1e6, not nan"),
        ({"tau": "0.01"}, "tau is a number from 1e-6 to 1e6, not '0.01'"),
        ({"batch_size": 1}, "batch_size is a whole number of at least 2, not 1"),
        ({"passes": 2.5}, r"passes is a whole number of at least 1, not 2\.5"),
        ({"seed": True}, "seed is a whole number of at least 0, not True"),
    ],
)
def test_a_wrong_constant_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NegClipLoss(**options)


def test_arrays_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"arrays of one shape, not \(3, 8\) and \(2, 8\)"):
        NegClipLoss()(pairs(3)[0], pairs(2)[1])


# nearest_similarity


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), dim=st.integers(2, 12), data=st.integers(0, 2**32))
def test_it_is_the_highest_cosine_to_any_other(count: int, dim: int, data: int) -> None:
    images, _ = pairs(count, dim, data)
    found = NearestSimilarity()(images)["nearest_similarity"]
    np.testing.assert_allclose(found, naive_nearest(images), rtol=0, atol=ROUNDED)


def test_identical_images_have_each_other_and_one_alone_has_none() -> None:
    images, _ = pairs(3)
    twins = np.concatenate([images[:1], images])
    assert NearestSimilarity()(twins)["nearest_similarity"][:2].tolist() == [1.0, 1.0]
    assert np.isnan(NearestSimilarity()(images[:1])["nearest_similarity"]).tolist() == [True]


def test_a_method_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="method is auto, exact or approximate, not 'quick'"):
        NearestSimilarity(method="quick")  # type: ignore[arg-type]
