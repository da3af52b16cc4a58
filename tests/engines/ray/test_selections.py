"""The second pass as tasks of a cluster leaves the files that it leaves on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from clipsieve.dedup import stretches
from clipsieve.engines.ray.spread import InTasks
from clipsieve.engines.ray.worker_environment import WorkerEnvironment
from tests.engines.conftest import curate_table
from tests.engines.test_selections_elsewhere import CAPTIONS, captions, files

pytest.importorskip("ray.data")


@pytest.mark.parametrize(
    "dedup", [{"threshold": 0.999, "links": "leader", "keep": "blur"}, "exact", {"threshold": 0.99, "unit": "image"}]
)
def test_shares_and_near_duplicates_on_a_cluster(
    cluster: Any, dedup: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "FEWEST", 8)
    options: dict[str, Any] = {"dedup": dedup, "rows_a_shard": 5, "write": "parquet", "on_error": "keep"}
    for name, spread in (("here", None), ("there", InTasks(environment=WorkerEnvironment(folder=os.getcwd())))):
        curate_table(captions(), CAPTIONS, "clip_score in top 90%", out=tmp_path / name, spread=spread, **options)

    assert files(tmp_path / "there") == files(tmp_path / "here")
