"""The semantic tier is what its page says pair by pair, however the search goes about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsieve.core import threads
from clipsieve.dedup import Duplicates, clusters, methods, search, semantic, sketch
from clipsieve.dedup.vectors import distance_limit
from tests.dedup.reference import Case, cases, expected, integer_distances


@st.composite
def vectors(draw: st.DrawFn) -> tuple[Case, np.ndarray, np.ndarray]:
    """Few directions in few dimensions, so that ties, equal rows and chains of links are common."""
    case, random = draw(cases())
    rows = random.integers(-2, 3, size=(case.n + case.others, draw(st.integers(1, 4)))).astype(np.float32)
    rows *= random.choice([1, 0.5, 3], size=(len(rows), 1))
    rows += np.float32(draw(st.sampled_from([0, 1e-7, 1e-4]))) * random.normal(size=rows.shape).astype(np.float32)
    rows[random.random(len(rows)) < 0.1] = np.nan
    return case, rows[: case.n], rows[case.n :]


def check(case: Case, ours: np.ndarray, others: np.ndarray, threshold: float) -> None:
    rows = np.concatenate([ours, others])
    wanted = expected(case, integer_distances(rows), (rows[:, None] == rows).all(axis=2), distance_limit(threshold))

    found = semantic(
        ours, threshold, order=case.order, units=case.units, links=case.links,
        method="exact", against=others if len(others) else None,
    )  # fmt: skip

    assert found.removed.tolist() == wanted.removed
    assert found.group.tolist() == wanted.group
    assert found.nearest.tolist() == wanted.nearest
    assert found.duplicate_of.tolist() == wanted.duplicate_of
    distances = np.array(wanted.distance, dtype=np.int64)
    similarity = np.where(distances < 0, np.nan, (100_000 - distances) / 100_000)
    np.testing.assert_array_equal(found.max_similarity, similarity)


THRESHOLDS = st.sampled_from([-1, 0, 0.5, 0.70711, 0.8, 0.9, 0.99999, 1])


@settings(max_examples=200, deadline=None)
@given(vectors(), THRESHOLDS)
def test_equals_the_pair_by_pair_reference(case: tuple[Case, np.ndarray, np.ndarray], threshold: float) -> None:
    check(*case, threshold)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks, clusters and sketches so small that a handful of images goes through all there is."""
    for module in (methods, search):
        monkeypatch.setattr(module, "BLOCK", 3)
        monkeypatch.setattr(module, "STRIP", 6)
    monkeypatch.setattr(methods, "SMALL", 0)
    monkeypatch.setattr(search, "QUEUE", 5)
    monkeypatch.setattr(search, "CROWDED", 2)
    monkeypatch.setattr(clusters, "SIZE", 4)
    monkeypatch.setattr(sketch, "CHOICES", (1, 2))
    monkeypatch.setattr(sketch, "CANDIDATE_COST", 0)
    monkeypatch.setattr(threads, "cores", lambda: 3)
    return


@pytest.mark.usefixtures("tiny")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(vectors(), THRESHOLDS)
def test_blocks_clusters_sketches_and_threads_change_nothing(
    case: tuple[Case, np.ndarray, np.ndarray], threshold: float
) -> None:
    check(*case, threshold)


def clustered(n: int, dim: int = 64, spread: float = 0.4) -> np.ndarray:
    """Vectors with a common direction, some groups and a falling spectrum, as a model's have."""
    random = np.random.default_rng(7)
    spectrum = np.arange(1, dim + 1) ** -0.6
    rows = random.normal(size=(n // 20, dim))[random.integers(n // 20, size=n)]
    rows = (rows + spread * random.normal(size=(n, dim))) * spectrum
    rows[:, 0] += 2
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def same(one: Duplicates, other: Duplicates) -> None:
    for name in ("removed", "group", "nearest", "duplicate_of", "max_similarity"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand images go the way of many."""
    monkeypatch.setattr(methods, "SMALL", 0)


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize(("block", "workers"), [(1024, 1), (1024, 4), (257, 2), (5000, 2)])
def test_block_size_and_threads_change_nothing(block: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(3000)
    usual = semantic(rows, 0.95)
    for module in (methods, search):
        monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(threads, "cores", lambda: workers)

    same(semantic(rows, 0.95), usual)


@pytest.mark.parametrize(("shape", "threshold"), [("clustered", 0.95), ("isotropic", 0.4)])
def test_sketches_change_nothing(shape: str, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    rows = clustered(3000) if shape == "clustered" else random.normal(size=(3000, 64)).astype(np.float32)
    compared = semantic(rows, threshold)
    monkeypatch.setattr(methods, "SMALL", 0)

    same(semantic(rows, threshold), compared)
    assert 100 < compared.removed.sum() < 2900


def test_an_approximate_search_says_how_much_it_finds() -> None:
    rows = clustered(3000)
    every, some = semantic(rows, 0.95, method="exact"), semantic(rows, 0.95, method="approximate")

    assert (every.method, every.recall) == ("vectors, exact search", 1.0)
    assert some.method == "vectors, approximate search"
    assert some.recall is not None
    assert some.recall >= 0.99
    assert (some.removed <= every.removed).all()
    assert (some.max_similarity <= every.max_similarity).all()


def test_an_approximate_search_without_a_link_has_no_recall() -> None:
    assert semantic(np.eye(50, dtype=np.float32), method="approximate").recall is None


def test_cosines_are_those_of_the_vectors() -> None:
    rows = clustered(300) * np.float32(7)
    cosines = rows.astype(np.float64) @ rows.T.astype(np.float64) / np.outer(*[np.linalg.norm(rows, axis=1)] * 2)
    np.fill_diagonal(cosines, -2)

    np.testing.assert_allclose(semantic(rows).max_similarity, cosines.max(axis=1), atol=0.6e-5)


@pytest.mark.parametrize("angle", np.linspace(0.01, 3.1, 40))
def test_an_image_goes_exactly_when_its_reported_similarity_reaches_the_threshold(angle: float) -> None:
    rows = np.array([[1, 0], [np.cos(angle), np.sin(angle)]], dtype=np.float32)
    reported = float(semantic(rows, 1).max_similarity[0])

    assert semantic(rows, reported).removed.tolist() == [False, True]
    assert semantic(rows, min(np.nextafter(reported, 2), 1)).removed.tolist() == [False, False]


@pytest.mark.usefixtures("sketched")
def test_many_nearly_equal_images_take_little_memory() -> None:
    """5,000 images have 12 million pairs, all of them links and all of them ties for the nearest."""
    tracemalloc = pytest.importorskip("tracemalloc")
    random = np.random.default_rng(0)
    rows = 1 + 1e-4 * random.normal(size=(5000, 64)).astype(np.float32)
    tracemalloc.start()

    found = semantic(rows)

    assert tracemalloc.get_traced_memory()[1] < 150e6
    tracemalloc.stop()
    assert not found.removed[0]
    assert found.removed[1:].all()
    assert (found.duplicate_of[1:] == 0).all()
    assert (found.max_similarity == 1).all()
    assert (found.nearest == np.where(np.arange(5000) == 0, 1, 0)).all()


def test_many_equal_images_are_compared_once() -> None:
    rows = np.ones((200_000, 16), dtype=np.float32)
    rows[::2] *= -1

    found = semantic(rows, links="leader")

    assert np.flatnonzero(~found.removed).tolist() == [0, 1]
    assert found.nearest[:4].tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_nothing_to_compare(n: int, method: Any) -> None:
    found = semantic(np.ones((n, 8), dtype=np.float32), method=method)

    assert found.removed.tolist() == [False] * n
    assert found.nearest.tolist() == found.group.tolist() == found.duplicate_of.tolist() == [-1] * n
    assert np.isnan(found.max_similarity).all()


def test_rows_without_a_direction_are_passed_over() -> None:
    rows = np.array([[np.nan, 1], [0, 0], [np.inf, 1], [1, 1], [2, 2]], dtype=np.float32)

    found = semantic(rows, -1)

    assert found.removed.tolist() == [False, False, False, False, True]
    assert found.nearest.tolist() == [-1, -1, -1, 4, 3]


def test_an_earlier_data_set_comes_first_and_is_never_removed() -> None:
    rows = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    earlier = np.array([[-1, -1], [1, 0]], dtype=np.float32)

    found = semantic(rows, against=earlier)

    assert found.removed.tolist() == [True, False, True]
    assert found.duplicate_of.tolist() == [4, -1, 1]
    assert found.nearest.tolist() == [4, 2, 1]


@pytest.mark.usefixtures("sketched")
def test_reads_a_memory_map_and_says_how_far_it_is(tmp_path: Any) -> None:
    rows = clustered(3000)
    np.save(tmp_path / "vectors.npy", rows)
    steps: list[tuple[int, int]] = []

    mapped = semantic(
        np.load(tmp_path / "vectors.npy", mmap_mode="r"), 0.95, progress=lambda *step: steps.append(step)
    )  # fmt: skip

    same(mapped, semantic(rows, 0.95))
    assert steps == [(done, steps[-1][1]) for done in range(1, len(steps) + 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vectors": np.ones(4, np.float32)}, r"vectors is an \(n, dim\) array of floats, not float32 of shape \(4,\)"),
        ({"vectors": np.ones((4, 2), int)}, r"vectors is an \(n, dim\) array of floats, not int64"),
        ({"threshold": 90}, "threshold is a cosine between -1 and 1, not 90"),
        ({"threshold": np.nan}, "threshold is a cosine between -1 and 1, not nan"),
        ({"order": [0, 1, 2]}, r"order needs 4 whole numbers, one an image, got int64 of shape \(3,\)"),
        ({"order": [0, 1, 1, 3]}, "order has to name each image from 0 to 3 once"),
        ({"units": [0.0, 1, 2, 3]}, "units needs 4 whole numbers"),
        ({"units": [0, 1, 0, 1]}, "the images of a unit have to be neighbours in order"),
        ({"links": "all"}, "links is one of any, leader, group, not 'all'"),
        ({"method": "faiss"}, "method is 'auto', 'exact' or 'approximate', not 'faiss'"),
        ({"against": np.ones((3, 5), np.float32)}, "vectors have 2 dimensions, those of against 5"),
    ],
)
def test_says_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        semantic(**{"vectors": np.ones((4, 2), dtype=np.float32), **options})
