"""Pairs of near duplicates are those that the definition gives, in order, and are never all in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsieve.dedup import Duplicates, Pair, Pairs, pairs, semantic
from clipsieve.dedup.vectors import distance_limit
from tests.dedup.reference import integer_distances

THRESHOLDS = st.sampled_from([-1, 0, 0.5, 0.70711, 0.9, 0.99999, 1])


@st.composite
def vectors(draw: st.DrawFn) -> np.ndarray:
    """Few directions in few dimensions, so that equal rows and chains of links are common; some rows of NaN."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = random.integers(-2, 3, size=(draw(st.integers(0, 24)), draw(st.integers(1, 4)))).astype(np.float32)
    rows += np.float32(draw(st.sampled_from([0, 1e-7, 1e-4]))) * random.normal(size=rows.shape).astype(np.float32)
    rows[random.random(len(rows)) < 0.1] = np.nan
    return rows


def by_definition(rows: np.ndarray, threshold: float) -> list[Pair]:
    distances = integer_distances(rows)
    return [
        Pair(i, j, (100_000 - int(distances[i, j])) / 100_000)
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
        if 0 <= distances[i, j] <= distance_limit(threshold)
    ]


@pytest.fixture(params=[1, 3, 256])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pairs, "BLOCK", request.param)
    return


@pytest.mark.usefixtures("blocks")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(vectors(), THRESHOLDS, st.slices(40))
def test_pairs_are_those_of_the_definition(rows: np.ndarray, threshold: float, some: slice) -> None:
    wanted = by_definition(rows, threshold)
    found = Pairs(rows, threshold)
    assert list(found) == wanted
    assert len(found) == len(wanted)
    assert [found[place] for place in range(len(found))] == wanted
    assert [found[-place] for place in range(1, len(found) + 1)] == wanted[::-1]
    assert list(found[some]) == wanted[some]
    assert list(found[some][1::2]) == wanted[some][1::2]


@settings(max_examples=100, deadline=None)
@given(vectors(), THRESHOLDS)
def test_what_dedup_removes_is_what_comes_second_in_a_pair(rows: np.ndarray, threshold: float) -> None:
    found = semantic(rows, threshold, links="any")
    seconds = {pair.second for pair in Pairs(rows, threshold, found=found)}
    assert set(np.flatnonzero(found.removed).tolist()) == seconds


def test_a_pair_that_a_search_missed_is_not_listed() -> None:
    alike = np.array([[1, 0], [1, 0.001], [1, 0.002], [1, 0.003]], dtype=np.float32)
    missed = semantic(alike, 0.9)
    parted = Duplicates(
        removed=np.array([False, True, False, True]),
        group=np.array([0, 0, 2, 2]),
        nearest=missed.nearest,
        duplicate_of=missed.duplicate_of,
        method="vectors, approximate search",
    )
    assert list(Pairs(alike, 0.9, found=parted)) == [(0, 1, 1.0), (2, 3, 1.0)]


def test_millions_of_pairs_take_little_memory() -> None:
    same = np.ones((5000, 16), dtype=np.float32)
    Pairs(same[:9]).count(Pair(0, 1, 1.0))  # imports and threads
    tracemalloc.start()
    found = Pairs(same)
    assert len(found) == 5000 * 4999 // 2
    assert found[0] == (0, 1, 1.0)
    assert found[4999] == (1, 2, 1.0)
    assert found[-1] == (4998, 4999, 1.0)
    assert list(found[-3:]) == [(4997, 4998, 1.0), (4997, 4999, 1.0), (4998, 4999, 1.0)]
    assert list(islice(found, 4998, 5000)) == [(0, 4999, 1.0), (1, 2, 1.0)]
    assert len(found[1_000_000:11_000_000:2]) == 5_000_000
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


def test_a_place_that_is_none_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        Pairs(np.eye(3, dtype=np.float32), 0.9)[0]


def test_found_has_to_be_of_the_same_images() -> None:
    rows = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="found is of 2 images, vectors is of 3"):
        Pairs(rows, found=semantic(rows[:2]))


def test_pairs_say_what_they_are_without_searching() -> None:
    pairs = Pairs(np.eye(3), 0.9)
    assert repr(pairs) == "Pairs(of 3 images; list(pairs[:100]) shows the first)"
    assert repr(pairs[:0]).startswith("0 of Pairs(of 3")
