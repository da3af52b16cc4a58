"""What every store must do, over the same rows: their answers are equal, to the last bit and in the same order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clipsieve.errors import IndexStoreError, ModelError, RuleError, UsageError
from clipsieve.index import About, Index, vectors_of
from clipsieve.index.lancedb import LanceStore
from clipsieve.index.store import row_schema
from tests.fakes import ColourEncoder
from tests.index.conftest import ABOUT, COLOURS, DIM, SCORES, Fill, rows, unit

RNG = np.random.default_rng(5)
MANY = unit(RNG.normal(size=(500, DIM)))
QUERY = unit(RNG.normal(size=DIM))
HOSTILE = [
    "'; DROP TABLE images; --",
    "\\",
    "a`b",
    "{v0:String}",
    "tab\tnew\nline",
    "\x1b[31m",
    "\\N",
    'q"uote',
    "é🐕",
    "",
]


def expected(vectors: np.ndarray, query: np.ndarray, k: int) -> tuple[list[str], np.ndarray]:
    """By plain float64 over all rows: ids and cosines, highest first, equals by id."""
    exact = vectors.astype(np.float64)
    cosines = (
        exact @ query.astype(np.float64) / np.linalg.norm(exact, axis=1) / np.linalg.norm(query.astype(np.float64))
    )
    order = np.lexsort((np.arange(len(cosines)), -cosines))[:k]
    return [f"{i:04d}" for i in order], cosines[order]


def test_the_nearest_are_those_of_float64(fill: Fill) -> None:
    found = fill(MANY).nearest(QUERY, k=25)
    ids, cosines = expected(MANY, QUERY, 25)
    assert found["id"].to_pylist() == ids
    np.testing.assert_allclose(found["similarity"].to_numpy(), cosines, atol=1e-12)


def test_equals_come_by_id_also_where_the_list_is_cut(fill: Fill) -> None:
    # 60 equal vectors, of which any store alone would give any 10.
    found = fill(np.concatenate([np.tile(QUERY, (60, 1)), -MANY[:40]])).nearest(QUERY, k=10)
    assert found["id"].to_pylist() == [f"{i:04d}" for i in range(10)]


def test_nearly_equals_come_in_their_true_order(fill: Fill) -> None:
    # Cosines that differ in the 8th digit, which sums in float32 cannot tell.
    angles = np.linspace(1e-4, 1.2e-4, 80)
    vectors = np.zeros((80, DIM), dtype=np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    query = np.eye(DIM, dtype=np.float32)[0]
    found = fill(vectors[::-1].copy()).nearest(query, k=30)
    assert found["id"].to_pylist() == expected(vectors[::-1], query, 30)[0]


@pytest.fixture(autouse=True)
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recall is measured with fewer vectors than in earnest."""
    monkeypatch.setattr("clipsieve.index.index.QUERIES", 20)


@pytest.mark.parametrize("approximate", [False, True], ids=["exact", "approximate"])
def test_a_filter_finds_what_is_far_away(fill: Fill, approximate: bool) -> None:
    # The only three that pass are the farthest of all: after an index's own limit none would be left.
    far = expected(MANY, -QUERY, 3)[0]
    index = fill(MANY, clip_score=[0.9 if f"{i:04d}" in far else 0.1 for i in range(500)])
    if approximate:
        index.approximate()
    assert index.nearest(QUERY, k=20, where="clip_score >= 0.5")["id"].to_pylist() == far[::-1]


def test_an_approximate_index_says_its_recall_and_can_be_dropped(fill: Fill, place: str) -> None:
    index = fill(MANY)
    built = index.approximate()
    assert (built.rows, built.queries) == (500, 20)
    assert built.recall >= 0.9
    with Index.open(place) as again:
        assert again.about.approximate == built
        found = again.nearest(QUERY, k=5)
        assert len(set(found["id"].to_pylist()) & set(expected(MANY, QUERY, 5)[0])) >= 4
        again.exact()
        assert again.about.approximate is None
        assert again.nearest(QUERY, k=5)["id"].to_pylist() == expected(MANY, QUERY, 5)[0]


def test_an_approximate_index_knows_later_rows_and_forgets_deleted_ones(fill: Fill) -> None:
    index = fill(MANY)
    index.approximate()
    schema = row_schema(SCORES, DIM)
    index.store.put(rows(unit([QUERY]), schema, id=["new"], label=["late"]))
    moved = rows(unit([-QUERY]), schema, id=expected(MANY, QUERY, 1)[0])
    index.store.put(moved)
    assert index.nearest(QUERY, k=1)["label"].to_pylist() == ["late"]
    assert index.nearest(-QUERY, k=1)["id"].to_pylist() == moved["id"].to_pylist()
    index.store.delete([name for name in (f"{i:04d}" for i in range(500)) if name not in moved["id"].to_pylist()])
    assert len(index) == 2
    assert index.nearest(QUERY, k=10)["id"].to_pylist() == ["new", *moved["id"].to_pylist()]


RULES = [
    ("clip_score >= 0.5", [2, 3]),
    ("clip_score != 0.5", [0, 3]),  # what has no value passes no rule
    ("0.2 <= clip_score < 0.6", [2]),
    ("width == 512", [0, 1]),
    ("width > 500 and clip_score < 0.5", [0]),
    ('label in ("cat", "a dog")', [0, 1]),
    ("label in (cat)", [0]),
    ('label == "a dog"', [1]),
    ('label != "cat"', [1, 2]),
    ('label > "b"', [0, 2]),
    ('caption == "it\'s"', [3]),
    ("image >= 2", [2, 3]),
    ("width > 99999", []),
]


def test_rules_pass_as_in_a_recipe(fill: Fill) -> None:
    index = fill(
        MANY[:4],
        clip_score=[0.1, None, 0.5, 0.9],
        width=[512.0, 512.0, 100.0, None],
        label=["cat", "a dog", "x", None],
        caption=[None, "a", "b", "it's"],
        image=[0, 1, 2, 3],
    )
    for where, passing in RULES:
        found = sorted(index.nearest(QUERY, where=where)["id"].to_pylist())
        assert found == [f"{i:04d}" for i in passing], where


def test_hostile_text_is_stored_found_and_never_run(fill: Fill) -> None:
    index = fill(MANY[: len(HOSTILE)], label=HOSTILE, caption=HOSTILE, reference=HOSTILE)
    for i, text in enumerate(HOSTILE):
        mark = "'" if '"' in text else '"'
        if mark not in text:
            for where in (f"label == {mark}{text}{mark}", f"caption in ({mark}{text}{mark}, z)"):
                assert index.nearest(QUERY, where=where)["id"].to_pylist() == [f"{i:04d}"], where
        assert index.store.find("reference", [text], ["id"])["id"].to_pylist() == [f"{i:04d}"], text
    found = index.store.find("id", [f"{i:04d}" for i in range(len(HOSTILE))], ["id", "caption"]).sort_by("id")
    assert found["caption"].to_pylist() == HOSTILE


IMPOSSIBLE = [
    ("clip_scor >= 1", "unknown score 'clip_scor'; did you mean 'clip_score'? known: caption, "),
    ("vector >= 1", "unknown score 'vector'"),
    ("clip_score in top 10%", "a share of the data set is for recipes"),
    ("any(clip_score) >= 1", "without any() or all()"),
    ("pair_similarity >= 1", "without any() or all()"),
    ("label >= 1", 'label is a text; write label in ("one", "other")'),
    ('width >= "1"', "width is a number; compare it with one"),
    ("width in (a, b)", "width is a number; compare it with one"),
    ("width >= 1e999", "a bound is too large for a number"),
    ("1 = 1 OR true", "cannot read '= 1 OR true'"),
    ("width >= 1; DROP TABLE images", "cannot read '; DROP TABLE images'"),
    ("", "expected the name of a score, found 'the end'"),
]


def test_what_cannot_be_asked_is_refused(fill: Fill) -> None:
    index = fill(MANY[:3])
    for where, line in IMPOSSIBLE:
        with pytest.raises(RuleError, match=re.escape(line)):
            index.nearest(QUERY, where=where)
    for k in (0, -1):
        with pytest.raises(UsageError, match="at least 1"):
            index.nearest(QUERY, k=k)
    for query in (QUERY[:3], np.full(DIM, np.nan), np.zeros(DIM)):
        with pytest.raises(UsageError, match="8 finite numbers"):
            index.nearest(query)
    assert len(index) == 3


def test_all_that_is_there_when_more_is_asked_for(fill: Fill) -> None:
    index = fill(MANY[:3])
    assert index.nearest(QUERY, k=10**9).num_rows == 3
    index.store.delete(["0000", "0001", "0002"])
    found = index.nearest(QUERY)
    assert found.num_rows == 0
    assert found.column_names[:2] == ["id", "similarity"]


def test_put_replaces_by_id(fill: Fill) -> None:
    index = fill(MANY[:4], label=["old"] * 4)
    schema = row_schema(SCORES, DIM)
    index.store.put(rows(MANY[4:6], schema, id=["0003", "0004"], label=["new"] * 2))
    assert len(index) == 5
    found = index.store.find("id", ["0002", "0003", "0004"], ["id", "label", "vector"]).sort_by("id")
    assert found["label"].to_pylist() == ["old", "new", "new"]
    assert (vectors_of(found) == MANY[[2, 4, 5]]).all()


@pytest.mark.parametrize("approximate", [False, True], ids=["exact", "approximate"])
def test_what_a_row_was_before_is_not_found(fill: Fill, approximate: bool) -> None:
    # The 100 nearest change places with their opposites, again and again, and lose the label that a rule asks for.
    index = fill(MANY, label=["old"] * 500)
    if approximate:
        index.approximate()
    vectors = MANY.copy()
    near = [int(name) for name in expected(MANY, QUERY, 100)[0]]
    for turn in range(3):
        vectors[near] *= -1
        put = rows(vectors[near], row_schema(SCORES, DIM), id=[f"{i:04d}" for i in near], label=[f"{turn}"] * 100)
        index.store.put(put)
    assert len(index) == 500
    ids, cosines = expected(vectors, QUERY, 30)
    found = index.nearest(QUERY, k=30)
    if not approximate:
        assert found["id"].to_pylist() == ids
    assert found["similarity"].to_numpy()[0] == pytest.approx(cosines[0], abs=1e-12)
    assert index.nearest(QUERY, k=30, where='label == "old"')["id"].to_pylist() == ids
    assert index.nearest(QUERY, where='label in ("0", "1")').num_rows == 0


def test_rows_come_back_as_they_were_put(fill: Fill) -> None:
    scored = {"pair_similarity": [[0.5, None], [], [1.0]], "thumbnail": [b"\xff\xd8\x00", None, b""]}
    index = fill(MANY[:3], sources=[["a", "b'"], [], ["c"]], **scored)
    put = rows(MANY[:3], row_schema(SCORES, DIM), sources=[["a", "b'"], [], ["c"]], **scored)
    found = index.store.find("id", put["id"].to_pylist(), put.column_names).sort_by("id")
    assert found.to_pylist() == put.to_pylist()


def test_scan_gives_every_row_once_in_small_batches(fill: Fill) -> None:
    index = fill(MANY, reference=[f"r{i}" for i in range(500)])
    batches = list(index.vectors(64))
    assert all(batch.num_rows <= 64 for batch in batches)
    assert all(batch.schema.names == ["id", "reference", "vector"] for batch in batches)
    whole = pa.Table.from_batches(batches).sort_by("id")
    assert whole["reference"].to_pylist() == [f"r{i}" for i in range(500)]
    assert (vectors_of(whole) == MANY).all()


def test_columns_of_later_runs_are_added(fill: Fill, place: str) -> None:
    fill(MANY[:2]).close()
    with Index.create(place, ABOUT, [pa.field("blur", pa.float64())]) as index:
        assert [field.name for field in index.scores] == [*(s.name for s in SCORES), "blur"]
        index.store.put(rows(MANY[2:3], index.store.schema(), id=["new"], blur=[7.0]))
        assert index.nearest(QUERY, where="blur > 1")["id"].to_pylist() == ["new"]
    with pytest.raises(IndexStoreError, match=r"width is double in .* and string in the run"):
        Index.create(place, ABOUT, [pa.field("width", pa.string())])


def test_an_index_keeps_to_its_model(fill: Fill, place: str) -> None:
    fill(MANY[:2]).close()
    other = About(model="other", revision=None, fingerprint="fp16-1", dim=16)
    with pytest.raises(IndexStoreError, match=r"holds vectors of m \(fp32-0, 8 dimensions\), the run those of other"):
        Index.create(place, other, [])
    with pytest.raises(ModelError, match=r"was made with m \(fp32-0\), the given model is another model \(colours\)"):
        Index.open(place, model=ColourEncoder()).search(text="red")


def test_search_by_text_by_image_and_by_both(place: str, tmp_path: Path) -> None:
    from tests.fakes import image_bytes

    colours = unit([[255, 0, 0], [0, 255, 0], [255, 255, 0], [0, 0, 255]])
    with Index.create(place, COLOURS, SCORES) as index:
        index.store.put(rows(colours, row_schema(SCORES, 3), label=["red", "green", "yellow", "blue"]))
    picture = tmp_path / "green.png"
    picture.write_bytes(image_bytes("green"))
    with Index.open(place, model=ColourEncoder()) as index:

        def first(**query: Any) -> str:
            return str(index.search(k=1, **query)["label"][0])

        assert first(text="red") == "red"
        for image in (picture, str(picture), picture.read_bytes(), np.full((9, 9, 3), (0, 255, 0), np.uint8)):
            assert first(image=image) == "green"
        assert first(text="red", image=picture) == "yellow"
        with pytest.raises(UsageError, match="the query is empty"):
            index.search(text=" ")
        with pytest.raises(UsageError, match="a text, an image, or both"):
            index.search()


def test_what_is_no_index_is_told(place: str) -> None:
    with pytest.raises(IndexStoreError, match=r"no index at .*; make it with: clipsieve index"):
        Index.open(place)


def test_a_second_writer_waits_its_turn(tmp_path: Path) -> None:
    first = LanceStore(tmp_path / "index")
    first.hold()
    with pytest.raises(IndexStoreError, match=r"index is being written by another process; wait for it"):
        LanceStore(tmp_path / "index").hold()
    first.close()
    LanceStore(tmp_path / "index").hold()
