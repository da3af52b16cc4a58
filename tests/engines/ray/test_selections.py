"""The second pass as tasks of a cluster leaves the files that it leaves on this machine, also in an object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest

import clipsieve
from clipsieve.core import storage
from clipsieve.dedup import partitions
from clipsieve.engines.ray.spread import InTasks
from clipsieve.engines.ray.worker_environment import WorkerEnvironment
from tests.engines.conftest import curate_table
from tests.engines.test_selections_elsewhere import CAPTIONS, captions, files
from tests.storage.conftest import put
from tests.storage.server import Server, serving

pytest.importorskip("ray.data")


@pytest.mark.parametrize(
    "dedup", [{"threshold": 0.999, "links": "leader", "keep": "blur"}, "exact", {"threshold": 0.99, "unit": "image"}]
)
def test_shares_and_near_duplicates_on_a_cluster(
    cluster: Any, dedup: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "FEWEST", 8)
    options: dict[str, Any] = {"dedup": dedup, "rows_a_shard": 5, "write": "parquet", "on_error": "keep"}
    for name, spread in (("here", None), ("there", InTasks(environment=WorkerEnvironment(folder=os.getcwd())))):
        curate_table(captions(), CAPTIONS, "clip_score in top 90%", out=tmp_path / name, spread=spread, **options)

    assert files(tmp_path / "there") == files(tmp_path / "here")


@pytest.fixture(name="store")
def store_fixture() -> Iterator[Server]:
    """An object store with a bucket, and with its options in force."""
    with serving() as store, storage.configured(store.options):
        fsspec.filesystem("s3").mkdir("bucket")
        yield store


def outputs(run: str) -> dict[str, bytes]:
    """What a run has written, by name."""
    files = fsspec.filesystem("s3")
    files.invalidate_cache()
    return {name.rpartition("/")[2]: files.cat_file(name) for name in files.find(f"{run}/output")}


def test_near_duplicates_where_all_is_in_a_bucket(
    cluster: Any, source: Path, store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "FEWEST", 8)  # so few images would be compared in one task
    put(source, "s3://bucket/data")
    recipe = {
        "read": {"path": "s3://bucket/data/[0-3].parquet", "shard_bytes": 30_000},
        "model": "demo",
        "keep": ["blur >= 100", "clip_score >= -1"],
        "dedup": 0.9,
        "write": "webdataset",
        "storage_options": store.options,
    }
    here = clipsieve.run(**recipe, out="s3://bucket/local")
    there = clipsieve.run(**recipe, out="s3://bucket/ray", engine="ray", encoders=1)
    assert len(there.shards()) > 2
    assert len(store.requests("^PUT /bucket/ray/staged/partitions/.*vectors")) > 1
    assert {"kept", "dropped", "failed"} == set(there.ledger["verdict"].to_pylist())
    assert any((rule or "").startswith("dedup") for rule in there.ledger["rule"].to_pylist())
    for column in here.ledger.column_names:
        one, other = here.ledger[column], there.ledger[column]
        if pa.types.is_floating(one.type):  # one thread sums in another order than two
            np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=0, atol=1.1e-5)
        else:
            assert one.equals(other), column
    assert outputs("s3://bucket/ray") == outputs("s3://bucket/local")
