from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.dedup import exact
from tests.dedup.reference import Case, cases, expected


@st.composite
def letters(draw: st.DrawFn) -> tuple[Case, np.ndarray]:
    case, random = draw(cases())
    return case, random.choice(list("abcdefgh"), size=case.n + case.others)


@settings(max_examples=150, deadline=None)
@given(letters())
def test_equals_the_pair_by_pair_reference(case: tuple[Case, np.ndarray]) -> None:
    asked, rows = case
    same = rows[:, None] == rows
    wanted = expected(asked, np.where(same, 0, 1), same, 0, far=False)

    found = exact(
        rows[: asked.n].tolist(), order=asked.order, units=asked.units, links=asked.links,
        against=rows[asked.n :].tolist(),
    )  # fmt: skip

    assert found.removed.tolist() == wanted.removed
    assert found.group.tolist() == wanted.group
    assert found.nearest.tolist() == wanted.nearest
    assert found.duplicate_of.tolist() == wanted.duplicate_of
    assert found.max_similarity is found.distance is found.recall is None


@pytest.mark.parametrize(
    "column",
    [
        ["a", None, "a", None],
        pa.array(["a", None, "a", None]),
        pa.chunked_array([["a", None], ["a", None]], pa.large_string()),
        pa.array([b"a", None, b"a", None]),
    ],
    ids=["list", "array", "chunks", "bytes"],
)
def test_null_is_no_hash(column: object) -> None:
    assert exact(column).removed.tolist() == [False, False, True, False]  # type: ignore[arg-type]


@pytest.mark.parametrize("column", [[], [None], pa.array([], pa.string()), pa.chunked_array([], pa.string())])
def test_nothing_to_compare(column: object) -> None:
    assert exact(column).nearest.tolist() == [-1] * len(column)  # type: ignore[arg-type]


def test_says_what_a_hash_is() -> None:
    with pytest.raises(ValueError, match="hashes are strings or bytes, not int64"):
        exact([1, 2])
