from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.dedup import hamming, perceptual
from clipsieve.dedup.hamming import close_pairs, distances
from tests.dedup.reference import Case, cases, expected


@st.composite
def hashes(draw: st.DrawFn) -> tuple[Case, np.ndarray]:
    """Few bits are set, so that hashes are near each other."""
    case, random = draw(cases())
    bits = random.integers(0, 64, size=(case.n + case.others, draw(st.integers(1, 8))))
    return case, np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), axis=1)


@settings(max_examples=150, deadline=None)
@given(hashes(), st.integers(0, 9))
def test_equals_the_pair_by_pair_reference(case: tuple[Case, np.ndarray], threshold: int) -> None:
    asked, rows = case
    distances = np.array([[(int(a) ^ int(b)).bit_count() for b in rows] for a in rows]).reshape(len(rows), len(rows))
    wanted = expected(asked, distances, distances == 0, threshold, far=False)

    found = perceptual(
        rows[: asked.n], threshold, order=asked.order, units=asked.units, links=asked.links, against=rows[asked.n :]
    )

    assert found.removed.tolist() == wanted.removed
    assert found.group.tolist() == wanted.group
    assert found.nearest.tolist() == wanted.nearest
    assert found.duplicate_of.tolist() == wanted.duplicate_of
    assert found.distance is not None
    assert found.distance.tolist() == wanted.distance


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 8, 10])
def test_bands_find_every_pair(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(limit)
    rows = random.integers(2**63, size=300, dtype=np.uint64)
    near = rows.copy()
    for bit in random.integers(0, 64, size=(limit + 1, len(rows))).astype(np.uint64):
        near ^= np.uint64(1) << bit
    both = np.concatenate([rows, near])

    def pairs() -> set[tuple[int, int, int]]:
        return {
            (min(a, b), max(a, b), bits)
            for found in close_pairs(both, limit)
            for a, b, bits in zip(*(column.tolist() for column in found), strict=True)
        }

    monkeypatch.setattr(hamming, "PAIRS", 1000)
    every = pairs()
    monkeypatch.setattr(hamming, "FEW", 0)

    assert pairs() == every
    assert len(every) >= (0 if limit < 2 else 20)


def test_distances_count_bits_with_and_without_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    left, right = random.integers(2**64, size=(2, 50, 3), dtype=np.uint64)
    counted = [
        [(int(a) ^ int(b)).bit_count() for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)
    ]

    assert distances(left, right).tolist() == counted
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert distances(left, right).tolist() == counted


def test_takes_the_texts_of_the_ledger_and_passes_over_what_has_none() -> None:
    texts = ["ffffffffffffffff", None, "fffffffffffffffe", None]
    for column in (texts, pa.array(texts), pa.chunked_array([texts[:2], texts[2:]])):
        found = perceptual(column, 4)

        assert found.removed.tolist() == [False, False, True, False]
        assert found.nearest.tolist() == [2, -1, 0, -1]


@pytest.mark.parametrize("column", [[], [None], pa.array([], pa.string()), np.zeros(0, np.uint64)])
def test_nothing_to_compare(column: object) -> None:
    assert perceptual(column).nearest.tolist() == [-1] * len(column)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", [["xyz"], ["0123"], [12], [1.5]])
def test_says_what_a_hash_is(column: list[object]) -> None:
    with pytest.raises(ValueError, match="hashes are uint64, or strings of 16 hexadecimal digits each"):
        perceptual(column)  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [-1, 65])
def test_says_what_a_threshold_is(threshold: int) -> None:
    with pytest.raises(ValueError, match=f"threshold is a number of bits from 0 to 64, not {threshold}"):
        perceptual(np.zeros(1, np.uint64), threshold)
