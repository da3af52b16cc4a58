"""Near duplicates of a finished run: the same as if its recipe had asked for them from the start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import clipsieve
from clipsieve import Run, demo
from clipsieve.api import dedup_run
from clipsieve.engines.select import Selector
from clipsieve.errors import ClipsieveError

KEEP = ["blur >= 100", "width in top 90%"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    demo.generate(folder, documents=30, pairs=60)
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "finished"
    return clipsieve.run(
        read=str(data / "pairs.jsonl"), model="demo", keep=KEEP, write="webdataset", vectors=True, out=out
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("dedup", [demo.DEDUP, {"method": "exact"}, {"threshold": 0.95, "keep": "width"}])
def test_it_gives_what_a_fresh_run_gives(data: Path, finished: Run, tmp_path: Path, dedup: object) -> None:
    later = dedup_run(finished, dedup, out=tmp_path / "later")
    fresh = clipsieve.run(
        read=str(data / "pairs.jsonl"), model="demo", keep=KEEP, dedup=dedup, write="webdataset", vectors=True,
        out=tmp_path / "fresh",
    )  # fmt: skip
    names = [name for name in fresh.ledger.column_names if name != "content_hash"]  # here only of what was kept
    assert str(later.ledger.select(names).to_pylist()) == str(fresh.ledger.select(names).to_pylist())
    assert later.duplicates == fresh.duplicates
    assert contents(tmp_path / "later" / "output") == contents(tmp_path / "fresh" / "output")
    assert contents(tmp_path / "later" / "vectors") == contents(tmp_path / "fresh" / "vectors")


def test_the_same_again_changes_nothing_and_another_threshold_wants_another_folder(
    finished: Run, tmp_path: Path
) -> None:
    first = dedup_run(finished, 0.99, out=tmp_path / "out")
    assert dedup_run(finished, 0.99, out=tmp_path / "out").counts == first.counts
    whole = contents(tmp_path / "out" / "ledger")
    for name in ("ledger/00000.parquet", "scores/00000.parquet", "vectors/00000.image.npy", "output/00000.tar"):
        (tmp_path / "out" / name).unlink()  # as if it had been killed on the way
    dedup_run(finished, 0.99, out=tmp_path / "out")
    assert contents(tmp_path / "out" / "ledger") == whole
    assert (tmp_path / "out" / "output" / "00000.tar").exists()
    with pytest.raises(ClipsieveError, match=r"another recipe \(dedup.threshold: 0\.99 then, 0\.98 now\)"):
        dedup_run(finished, 0.98, out=tmp_path / "out")


def test_what_an_earlier_run_has_goes(data: Path, finished: Run, tmp_path: Path) -> None:
    earlier = shutil.copytree(finished.path, tmp_path / "earlier")
    later = dedup_run(finished, {"threshold": 0.9999, "against": str(earlier)}, out=tmp_path / "later")
    assert later.counts.images.kept == 0
    assert later.duplicates is not None
    assert later.duplicates["against"] == {"name": str(earlier), "images": finished.counts.images.kept}
    reasons = later.ledger["reason"].to_pylist()
    assert any("of the earlier data" in reason for reason in reasons if reason)


def test_an_index_of_an_earlier_run_removes_what_the_run_does(data: Path, finished: Run, tmp_path: Path) -> None:
    earlier = clipsieve.run(read=str(data / "documents.parquet"), model="demo", vectors=True, out=tmp_path / "earlier")
    clipsieve.index_run(earlier, tmp_path / "index")
    by_run = dedup_run(finished, {"threshold": 0.98, "against": str(earlier.path)}, out=tmp_path / "by-run")
    by_index = dedup_run(finished, {"threshold": 0.98, "against": str(tmp_path / "index")}, out=tmp_path / "by-index")
    assert by_run.ledger["verdict"].equals(by_index.ledger["verdict"])
    assert by_run.ledger["max_similarity"].equals(by_index.ledger["max_similarity"])
    assert 0 < by_run.counts.dropped_by["dedup 0.98"] < finished.counts.images.kept


def test_a_run_without_vectors_is_refused_in_one_line(data: Path, tmp_path: Path) -> None:
    run = clipsieve.run(read=str(data / "pairs.jsonl"), model="demo", keep=["width >= 10"], out=tmp_path / "run")
    with pytest.raises(ClipsieveError, match=r"holds no image vectors: run its recipe with --vectors"):
        dedup_run(run, 0.9, out=tmp_path / "out")
    assert dedup_run(run, "perceptual", out=tmp_path / "perceptual").counts.images.total == 60


def test_a_source_that_has_changed_is_refused(data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()][:5]
    source = data / "few.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = clipsieve.run(read=str(source), model="demo", vectors=True, out=tmp_path / "run")
    source.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(ClipsieveError, match=r"the source has changed since this run began \(.*few\.jsonl\)"):
        dedup_run(run, 0.9, out=tmp_path / "out")


@pytest.fixture
def parquet(data: Path, tmp_path: Path) -> dict[str, Any]:
    """Six hundred rows in row groups of which none ends where one of the many shards does."""
    rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()] * 10
    images = [{**row, "id": f"{place}", "image": (data / row["image"]).read_bytes()} for place, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(images), path := tmp_path / "pairs.parquet", row_group_size=97)
    return {"path": str(path), "shard_bytes": path.stat().st_size // 50}


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_many_shards_are_read_by_one_reader_one_after_the_other(
    form: str, data: Path, parquet: dict[str, Any], tmp_path: Path
) -> None:
    read = parquet if form == "parquet" else {"path": str(data / "pairs.jsonl"), "shard_bytes": 1000}
    run = clipsieve.run(read=read, model="demo", keep=KEEP, vectors=True, out=tmp_path / "run")
    assert len(run.shards()) > 8

    later = dedup_run(run, 0.98, write="parquet", out=tmp_path / "later")

    written = pq.read_table(tmp_path / "later" / "output")
    kept = later.ledger.filter(pc.equal(later.ledger["verdict"], "kept"))
    assert written["id"].to_pylist() == kept["sample_id"].to_pylist()


def test_a_second_pass_without_what_was_staged_reads_the_source_again(
    parquet: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: dict[str, Any] = {"read": parquet, "model": "demo", "keep": KEEP, "dedup": 0.98, "write": "parquet"}
    clipsieve.run(**recipe, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Selector, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clipsieve.run(**recipe, out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "staged")

    clipsieve.run(**recipe, out=tmp_path / "run")

    for name in ("ledger", "output"):
        assert contents(tmp_path / "run" / name) == contents(tmp_path / "whole" / name)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
