"""From a run to an index: every kept image once, again and again, whatever happens in between."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import clipsieve
from clipsieve import api
from clipsieve.api import Indexed, index_run
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.core.ledger import BASE_SCHEMA
from clipsieve.errors import IndexStoreError, RunFolderError
from clipsieve.index import Index
from tests.fakes import image_bytes

ROOT = Path(__file__).parents[2]
COLOURS = ("red", "green", "blue", "white", "red", "red")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caption rows: six sharp images, one of them twice with one caption and twice with another, and a blurred one."""
    folder = tmp_path_factory.mktemp("source")
    rows = []
    for i, colour in enumerate(COLOURS):
        (folder / f"{i}.png").write_bytes(image_bytes(colour, seed=0 if i in (0, 4) else i))
        rows.append({"id": f"s{i}", "image": f"{i}.png", "caption": f"a {colour} thing"})
    (folder / "blurred.png").write_bytes(image_bytes("red", sharp=False))
    rows += [
        {"id": "again", "image": "0.png", "caption": "another caption"},
        {"id": "blurred", "image": "blurred.png", "caption": "a red thing"},
    ]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    clipsieve.run(
        read=str(folder / "rows.jsonl"), model="demo", keep=["blur >= 100", "width >= 1"], vectors=True,
        out=folder / "run",
    )  # fmt: skip
    clipsieve.run(read=str(folder / "rows.jsonl"), model="demo", vectors=True, out=folder / "all")
    return folder


def everything(place: Path | str) -> list[dict[str, object]]:
    """All rows by id, vectors and thumbnails included."""
    with Index.open(place) as index:
        found = pa.Table.from_batches(list(index.store.scan(index.store.schema().names, 100)))
    return found.sort_by("id").to_pylist()


def counts(done: Indexed) -> tuple[int, int, int, int]:
    return done.added, done.updated, done.unchanged, done.repeated


def test_every_kept_image_is_a_row(source: Path, tmp_path: Path) -> None:
    done = index_run(source / "run", tmp_path / "index")
    # 0.png and 4.png are equal and have one caption: one row. 0.png with another caption is a row of its own.
    assert counts(done) == (6, 0, 0, 1)
    assert (done.images, done.rows, done.without_thumbnail, done.without_vector) == (7, 6, 0, 0)
    rows = {row["sample_id"]: row for row in everything(tmp_path / "index")}
    assert rows.keys() == {"s0", "s1", "s2", "s3", "s5", "again"}
    row = rows["s1"]
    assert row["caption"] == "a green thing"
    assert row["reference"] == str(source / "1.png")
    assert row["sources"] == [str(source / "rows.jsonl")]
    assert row["image"] == 0
    assert row["width"] == 64.0
    assert row["blur"] == pytest.approx(api.Run.open(source / "run").ledger["blur"][1].as_py())
    small = Image.open(io.BytesIO(row["thumbnail"]))  # type: ignore[arg-type]
    assert (small.format, small.size) == ("JPEG", (64, 48))
    stored = api.Run.open(source / "run").vectors(0)[1]
    assert np.array_equal(np.array(row["vector"], dtype=np.float32), stored)


def test_the_same_run_again_changes_nothing(source: Path, tmp_path: Path) -> None:
    index_run(source / "run", tmp_path / "index")
    before = everything(tmp_path / "index")
    assert counts(index_run(source / "run", tmp_path / "index")) == (0, 0, 6, 1)
    assert everything(tmp_path / "index") == before


def test_ids_come_from_the_content_alone(source: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    rows = [json.loads(line) for line in (source / "rows.jsonl").read_text().splitlines()]
    for row in rows[::-1]:
        shutil.copy(source / row["image"], moved / f"x{row['image']}")
        row["image"] = f"x{row['image']}"
    (moved / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows[::-1]))
    clipsieve.run(read=str(moved / "rows.jsonl"), model="demo", keep=["blur >= 100"], vectors=True, out=moved / "run")
    index_run(source / "run", tmp_path / "one")
    index_run(moved / "run", tmp_path / "other")
    assert [row["id"] for row in everything(tmp_path / "one")] == [row["id"] for row in everything(tmp_path / "other")]


def test_pruning_removes_what_is_no_longer_kept_and_only_that(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    shutil.copytree(source, other := tmp_path / "other", ignore=shutil.ignore_patterns("run", "all"))
    lines = (other / "rows.jsonl").read_text().splitlines()
    (other / "rows.jsonl").write_text("\n".join([lines[-1], lines[1]]))  # the blurred one and the green one
    clipsieve.run(read=str(other / "rows.jsonl"), model="demo", vectors=True, out=other / "run")

    assert index_run(source / "all", place).rows == 7
    assert index_run(source / "run", place).rows == 7  # without --prune nothing goes
    done = index_run(source / "run", place, prune=True)
    assert (done.removed, done.rows) == (1, 6)

    assert index_run(source / "all", place).rows == 7
    assert counts(index_run(other / "run", place)) == (0, 2, 0, 0)  # the same content, now of both sources
    done = index_run(source / "run", place, prune=True)
    assert (done.removed, done.rows) == (0, 7)  # the other source still has the blurred one
    assert {row["sample_id"]: len(row["sources"]) for row in everything(place)}["blurred"] == 1  # type: ignore[arg-type]
    (other / "rows.jsonl").write_text(lines[1])
    shutil.rmtree(other / "run")
    clipsieve.run(read=str(other / "rows.jsonl"), model="demo", vectors=True, out=other / "run")
    assert index_run(other / "run", place, prune=True).removed == 1


def test_labels_added_later_reach_the_index(source: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(source / "run", tmp_path / "run"))
    index_run(run, tmp_path / "index")
    clipsieve.label(run, labels=["a red star", "a blue ring"], all=True)
    assert counts(index_run(run, tmp_path / "index")) == (0, 6, 0, 1)
    labels = {row["label"] for row in everything(tmp_path / "index")}
    assert labels <= {"a red star", "a blue ring"}
    with Index.open(tmp_path / "index") as index:
        for label in labels:
            found = index.search(text="red", where=f'label in ("{label}")')
            assert set(found["label"].to_pylist()) == {label}


def hide(*paths: Path) -> None:
    for path in paths:
        path.rename(path.with_suffix(".hidden"))


def show(*paths: Path) -> None:
    for path in paths:
        path.with_suffix(".hidden").rename(path)


def test_an_image_that_cannot_be_read_again_keeps_its_row(source: Path, tmp_path: Path) -> None:
    red, green = source / "0.png", source / "1.png"
    hide(green)
    try:
        done = index_run(source / "run", tmp_path / "index")
        assert (done.added, done.without_thumbnail) == (6, 1)
        (lost,) = [row for row in everything(tmp_path / "index") if row["thumbnail"] is None]
        assert lost["sample_id"] == "s1"
        assert counts(index_run(source / "run", tmp_path / "index")) == (0, 0, 6, 1)
    finally:
        show(green)
    # Now it can: its row is made anew, with a thumbnail. Then another cannot: what is known of it stays.
    done = index_run(source / "run", tmp_path / "index")
    assert (done.added, done.rows) == (1, 6)
    whole = everything(tmp_path / "index")
    assert all(row["thumbnail"] for row in whole)
    run = Path(shutil.copytree(source / "run", tmp_path / "run"))
    hide(red, green)
    try:
        done = index_run(run, tmp_path / "index")
        assert (done.added, done.updated, done.rows) == (0, 0, 6)
        assert everything(tmp_path / "index") == whole
        clipsieve.label(run, labels=["a red star", "a blue ring"])
        done = index_run(run, tmp_path / "index")
    finally:
        show(red, green)
    assert (done.added, done.updated, done.without_thumbnail) == (0, 6, 0)
    assert [row["thumbnail"] for row in everything(tmp_path / "index")] == [row["thumbnail"] for row in whole]


@pytest.mark.parametrize(("store", "kills", "stored"), [("lancedb", "before 2", 2), ("chdb", "after 1", 2)])
def test_killed_at_any_time_it_goes_on_where_it_was(
    source: Path, tmp_path: Path, store: str, kills: str, stored: int
) -> None:
    place = f"{'chdb://' if store == 'chdb' else ''}{tmp_path / 'index'}"
    command = [sys.executable, "-m", "tests.api.killed_index", str(source / "run"), place]
    killed = subprocess.run([*command, *kills.split()], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert index_run(source / "run", place).unchanged == stored
    index_run(source / "run", tmp_path / "whole")
    assert everything(place) == everything(tmp_path / "whole")


def test_documents_have_the_text_beside_the_image(tmp_path: Path) -> None:
    parts: list[tuple[str, str | None, bytes | None]] = [
        ("text", "before the first", None), ("image", None, image_bytes("red")), ("text", " ", None),
        ("image", None, image_bytes("green")), ("text", "after", None), ("image", None, image_bytes("blue")),
    ]  # fmt: skip
    other: list[tuple[str, str | None, bytes | None]] = [
        ("image", None, image_bytes("white")), ("text", "only after" + "x" * 2000, None)
    ]  # fmt: skip
    alone: list[tuple[str, str | None, bytes | None]] = [("image", None, image_bytes("red", (50, 50)))]
    rows = [
        {"sample_id": name, "position": i, "modality": kind, "text_content": text, "binary_content": data}
        for name, listed in (("a", parts), ("b", other), ("c", alone))
        for i, (kind, text, data) in enumerate(listed)
    ]
    empty = {"content_type": None, "source_ref": None, "materialize_error": None}
    pq.write_table(pa.Table.from_pylist([row | empty for row in rows], INTERLEAVED_SCHEMA), tmp_path / "d.parquet")
    clipsieve.run(read=str(tmp_path / "d.parquet"), model="demo", vectors=True, out=tmp_path / "run")
    index_run(tmp_path / "run", tmp_path / "index")
    found = {(row["sample_id"], row["image"]): row for row in everything(tmp_path / "index")}
    assert {key: row["caption"] and str(row["caption"])[:16] for key, row in found.items()} == {
        ("a", 0): "before the first", ("a", 1): "before the first", ("a", 2): "after", ("b", 0): "only afterxxxxxx",
        ("c", 0): None,
    }  # fmt: skip
    assert len(str(found["b", 0]["caption"])) == 1000


def test_a_kept_image_without_a_vector_is_counted_and_left_out(source: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    rows = [
        {"image": str(tmp_path / "broken.png"), "caption": "a"},
        {"image": str(source / "0.png"), "caption": "b"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    clipsieve.run(read=str(tmp_path / "rows.jsonl"), model="demo", vectors=True, on_error="keep", out=tmp_path / "run")
    done = index_run(tmp_path / "run", tmp_path / "index")
    assert (done.without_vector, done.rows) == (1, 1)
    assert index_run(tmp_path / "run", tmp_path / "index").unchanged == 1


def test_approximate_on_request_and_by_size(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index_run(source / "run", tmp_path / "index").approximate is None
    built = index_run(source / "run", tmp_path / "index", approximate=True).approximate
    assert built is not None
    assert (built.rows, built.recall, built.queries) == (6, 1.0, 6)
    assert index_run(source / "run", tmp_path / "index").approximate == built
    assert index_run(source / "run", tmp_path / "index", approximate=False).approximate is None
    monkeypatch.setattr("clipsieve.index.lancedb.LanceStore.exact_up_to", 5)
    assert index_run(source / "run", tmp_path / "index").approximate == built


def test_an_approximate_index_is_kept_up_to_date(source: Path, tmp_path: Path) -> None:
    first = index_run(source / "run", tmp_path / "index", approximate=True)
    assert first.approximate is not None
    assert first.approximate.rows == first.rows
    second = index_run(source / "all", tmp_path / "index")
    assert second.added == 1
    assert second.approximate is not None
    assert second.approximate.rows == second.rows == first.rows + second.added


def test_what_cannot_be_indexed_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    clipsieve.run(read=str(source / "rows.jsonl"), keep=["blur >= 100"], out=tmp_path / "plain")
    with pytest.raises(RunFolderError, match="holds no image vectors: run its recipe with --vectors"):
        index_run(tmp_path / "plain", tmp_path / "index")
    with pytest.raises(RunFolderError, match="no run at "):
        index_run(tmp_path / "gone", tmp_path / "index")
    run = Path(shutil.copytree(source / "run", tmp_path / "run"))
    os.remove(run / "ledger" / "00000.parquet")
    with pytest.raises(RunFolderError, match="is not finished"):
        index_run(run, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    with pytest.raises(IndexStoreError, match="is not an index, but holds something else"):
        index_run(source / "run", run)


@pytest.mark.parametrize("store", ["lancedb", "chdb"])
def test_every_column_of_a_ledger_can_be_stored(source: Path, tmp_path: Path, store: str) -> None:
    pairs = [["0.png", "1.png", "2.png"], ["0.png", "3.png"], ["5.png"]]
    rows = [{"images": [str(source / name) for name in names], "text": "a red thing"} for names in pairs]
    (tmp_path / "lists.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    clipsieve.score(str(tmp_path / "lists.jsonl"), model="demo", vectors=True, out=tmp_path / "scored")
    api.dedup_run(tmp_path / "scored", {"threshold": 0.999, "unit": "image"}, out=tmp_path / "run")
    clipsieve.label(tmp_path / "run", labels=["a red star", "a blue ring"], all=True)
    ledger = api.Run.open(tmp_path / "run").ledger
    place = f"{'chdb://' if store == 'chdb' else ''}{tmp_path / 'index'}"
    index_run(tmp_path / "run", place)
    stored = {(row["reference"]): row for row in everything(place)}
    for row in ledger.to_pylist():
        if row["verdict"] == "kept":
            for field in list(ledger.schema)[len(BASE_SCHEMA) :]:
                expected = row[field.name]
                expected = None if isinstance(expected, float) and np.isnan(expected) else expected
                assert stored[row["reference"]][field.name] == (expected if expected is not None else _empty(field))


def _empty(field: pa.Field) -> object:
    return [] if pa.types.is_list(field.type) else None
