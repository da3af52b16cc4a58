"""What a process of a cluster is given, and what stays with it: requests, connections and the bytes of images."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clipsieve.api.execution import committer_of
from clipsieve.api.runs import kept, open_source
from clipsieve.core.ledger import Counts
from clipsieve.core.timing import StageTimes
from clipsieve.core.urls import FetchPolicy, downloads
from clipsieve.engines import bytestore
from clipsieve.engines.downloads import sharing_requests
from clipsieve.engines.ray.cluster import Cluster
from clipsieve.engines.ray.engine import RayEngine
from clipsieve.engines.ray.shard_row import packed, unpacked
from clipsieve.engines.ray.steps import _prepared
from clipsieve.engines.ray.worker_environment import WorkerEnvironment
from clipsieve.engines.usage import PREPARE, Stamp
from clipsieve.plan import make_plan
from clipsieve.recipe import Recipe
from clipsieve.runfolder import RunFolder
from tests.fakes import image_bytes
from tests.imageserver import ImageServer


@contextmanager
def engine_of(images: list[str], folder: Path, fetch: Mapping[str, Any] | None = None) -> Iterator[RayEngine]:
    """An engine for a cluster of four CPUs, over a few captioned images a shard."""
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"image": image, "caption": "red"}) for image in images))
    read = {"path": str(folder / "rows.jsonl"), "shard_bytes": 150}
    recipe = Recipe.build({"read": read, "keep": ["blur >= 1"], "fetch": fetch or {}, "write": "webdataset"})
    reader = open_source(recipe)
    plan = make_plan(recipe, reader.layout.kind)
    environment = WorkerEnvironment(folder=".")
    cluster = Cluster(environment=environment, nodes=1, cpus=4, tasks=4, gpus=0, encoders=(1, 1), by_client=False)
    with RunFolder.open(folder / "run", recipe.identity(), {}) as run:
        yield RayEngine(
            cluster=cluster, plan=plan, reader=kept(reader, [run.path]), model=None,
            committer=committer_of(plan, run, None), progress=lambda images, counts: None,
        )  # fmt: skip


def test_encoders_load_the_model_where_the_cluster_has_placed_it(tmp_path: Path) -> None:
    with engine_of(["a.png"], tmp_path) as engine:
        assert engine.plan.recipe.device == "auto"
        assert engine._job.plan.recipe.device == "cpu"


def test_the_cpus_of_nodes_that_join_count_as_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = Stamp(operator=PREPARE, began=0, ended=1, process=("node", 1))
    (row,) = unpacked(packed({"stamps": [stamp], "counts": Counts()}))
    found = iter([6, 5])
    monkeypatch.setattr("clipsieve.engines.ray.engine.ASK_S", 0)
    monkeypatch.setattr(Cluster, "cpus_now", lambda self: next(found))
    with engine_of(["a.png"], tmp_path) as four_cpus:
        monkeypatch.setattr(four_cpus, "_rows", lambda shards: (row for _ in range(2)))
        four_cpus.run([])
        assert [one.workers for one in four_cpus.usage] == [6]


@pytest.mark.parametrize(("tasks", "each"), [(1, (256, 8)), (4, (64, 2)), (96, (2, 1)), (1000, (1, 1))])
def test_processes_divide_the_requests_of_the_recipe(tasks: int, each: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": "https://example.org/a.png", "caption": "red"}\n')
    recipe = Recipe.build({"read": str(tmp_path / "rows.jsonl"), "fetch": {"timeout": 3}})
    reader = open_source(recipe)
    shared = sharing_requests(reader, tasks)
    assert shared.layout.fetch == FetchPolicy(timeout=3, concurrency=each[0], per_host=each[1])
    assert reader.layout.fetch == recipe.fetch == FetchPolicy(timeout=3)
    off = open_source(Recipe.build({"read": str(tmp_path / "rows.jsonl"), "fetch": False}))
    assert sharing_requests(off, tasks) is off


def test_a_process_keeps_its_connections_from_shard_to_shard(tmp_path: Path) -> None:
    with ImageServer() as server:
        urls = [server(f"image/{name}.png") for name in "abcdef"]
        with engine_of(urls, tmp_path, {"allow_private": True, "per_host": 4}) as engine:
            shards = engine.reader.shards()
            assert len(shards) > 2
            for shard in shards:
                work, _ = _prepared(engine._job, shard, StageTimes())
                assert not any(chunk.errors for chunk in work.chunks)
            with downloads(engine.reader.layout.fetch or FetchPolicy(), then_close=True):
                pass
        assert sum(server.asked.values()) == 6
        assert (server.most, server.connections) == (1, 1)


def test_bytes_that_are_too_many_for_memory_do_not_go_to_the_run_folder_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes("red"))
    folders: list[str | None] = []
    make = tempfile.SpooledTemporaryFile

    def making(size: int, dir: str | None) -> Any:
        folders.append(dir)
        return make(size, dir=dir)

    monkeypatch.setattr(bytestore.tempfile, "SpooledTemporaryFile", making)
    with engine_of([str(tmp_path / "a.png")], tmp_path) as engine:
        work, _ = _prepared(engine._job, engine.reader.shards()[0], StageTimes())
        assert work.store.packed()[0] == (tmp_path / "a.png").read_bytes()
    assert folders == [None]
