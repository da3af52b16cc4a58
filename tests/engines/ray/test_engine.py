"""Whatever the layout, the number of workers and the batch size: on Ray a run commits what it commits here."""

from __future__ import annotations

import math
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clipsieve
from clipsieve import demo
from clipsieve.api import execution
from clipsieve.engines.ray import pipeline
from clipsieve.engines.ray.cluster import CLIENT_ATTEMPTS, Cluster, _connect, _lead_to_one, _measured
from clipsieve.engines.ray.pipeline import run_shards
from clipsieve.engines.ray.spread import CPUS
from clipsieve.engines.ray.worker_environment import WorkerEnvironment
from clipsieve.errors import CountsError, EngineError, ModelError, RecipeError
from clipsieve.recipe import Recipe
from clipsieve.runfolder import RunFolder
from tests.engines.ray.conftest import CLIENT, contents, curate
from tests.engines.ray.hooks import Hook
from tests.fakes import image_bytes

pytest.importorskip("ray.data")


def some_image(chance: random.Random) -> bytes | None:
    """Sharp, blurred, cut off, empty or missing."""
    data = image_bytes(
        chance.choice(["red", "green", "blue"]), (chance.randint(20, 60), 40),
        sharp=chance.random() < 0.7, seed=chance.randint(0, 99),
    )  # fmt: skip
    return chance.choices([data, data[:60], b"", None], [10, 1, 1, 1])[0]


def rows_of(layout: str, chance: random.Random, folder: Path) -> pa.Table:
    """Forty samples of a layout; captions by path, the others with their bytes."""
    samples = range(40)
    if layout == "captions":
        paths = []
        for number in samples:
            (folder / f"{number}.png").write_bytes(some_image(chance) or b"")
            paths.append(f"{number}.png" if chance.random() < 0.9 else "missing.png")
        return pa.table({"image": paths, "text": [f"number {number}" for number in samples]})
    if layout == "lists":
        images = [[some_image(chance) for _ in range(chance.randint(0, 3))] for _ in samples]
        return pa.table({"images": pa.array(images, pa.list_(pa.binary()))})
    rows: list[dict[str, Any]] = []
    for number in samples:
        for position in range(chance.randint(1, 4)):
            image = chance.random() < 0.6
            rows.append(
                {
                    "sample_id": f"document-{number}",
                    "position": position,
                    "modality": "image" if image else "text",
                    "content_type": "image/png" if image else "text/plain",
                    "text_content": None if image else f"words {number}",
                    "binary_content": some_image(chance) if image else None,
                    "source_ref": None,
                    "materialize_error": None,
                }
            )
    kinds = {"position": pa.int32(), "binary_content": pa.large_binary()}
    names = list(rows[0])
    return pa.table({name: pa.array([row[name] for row in rows], kinds.get(name, pa.string())) for name in names})


SHARD_BYTES = {"captions": 200, "lists": 20_000, "interleaved": 20_000}


@pytest.mark.parametrize("layout", list(SHARD_BYTES))
@pytest.mark.parametrize("workers", [1, 3])
def test_ledger_and_output_are_those_of_the_local_engine(
    cluster: Any, tmp_path: Path, layout: str, workers: int
) -> None:
    chance = random.Random(f"{layout}{workers}")
    pq.write_table(rows_of(layout, chance, tmp_path), tmp_path / "rows.parquet", row_group_size=8)
    recipe = {
        "read": {"path": str(tmp_path / "rows.parquet"), "layout": layout, "shard_bytes": SHARD_BYTES[layout]},
        "keep": [{"rule": "blur >= 100", "drop": chance.choice(["image", "sample"])}, "width >= 25"],
        "write": {"format": "parquet" if layout == "lists" else "webdataset"},
        "on_error": chance.choice(["drop", "drop-sample", "keep"]),
        "score_all": chance.random() < 0.5,
    }
    clipsieve.run(**recipe, out=tmp_path / "local")
    clipsieve.run(**recipe, out=tmp_path / "ray", engine="ray", workers=workers)
    assert len(RunFolder(tmp_path / "ray").stored_shards()) > 3
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_with_a_model_texts_prompts_and_vectors(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipsieve.engines.ray.engine.ASK_S", 0)
    demo.generate(tmp_path / "data", seed=3, documents=15, pairs=1)
    recipe = {
        "read": {"path": str(tmp_path / "data" / "documents.parquet"), "shard_bytes": 200_000},
        "model": "demo",
        "keep": [*demo.KEEP_DOCUMENTS, "label_probability >= 0.01"],
        "scores": {"label": {"labels": ["a red circle", "a blue square", "a cat"]}},
        "vectors": True,
        "write": "webdataset",
        "batch_size": 8,
    }
    clipsieve.run(**recipe, out=tmp_path / "local")
    run = clipsieve.run(**recipe, out=tmp_path / "ray", engine="ray", encoders=2)
    assert len(run.shards()) > 2
    here = clipsieve.Run.open(tmp_path / "local")
    for column in here.ledger.column_names:
        one, other = here.ledger[column], run.ledger[column]
        if pa.types.is_floating(one.type):  # two encoders have half the threads each, which sum in another order
            np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=0, atol=1.1e-5)
        else:
            assert one.equals(other), column
    for shard in here.shards():
        for of in ("image", "text"):
            vectors = here.vectors(shard.number, of), run.vectors(shard.number, of)
            np.testing.assert_allclose(*vectors, rtol=0, atol=1e-5)
    tars = [path.name for path in sorted((tmp_path / "local" / "output").iterdir())]
    assert tars == [path.name for path in sorted((tmp_path / "ray" / "output").iterdir())]
    for tar in tars:
        assert (tmp_path / "ray" / "output" / tar).read_bytes() == (tmp_path / "local" / "output" / tar).read_bytes()
    assert [one.operator for one in run.facts.operators] == ["prepare", "encode", "write"]
    assert {one.shards for one in run.facts.operators} == {len(run.shards())}
    assert [one.workers for one in run.facts.operators if one.operator != "encode"] == [2, 2]


def test_two_passes_on_a_cluster(cluster: Any, source: Path, tmp_path: Path) -> None:
    recipe = {
        "read": {"path": str(source / "*.parquet"), "shard_bytes": 30_000},
        "keep": ["blur >= 100", "blur in top 80%"],
        "dedup": "perceptual",
        "write": "jsonl",
    }
    clipsieve.run(**recipe, out=tmp_path / "local")
    clipsieve.run(**recipe, out=tmp_path / "ray", engine="ray")
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_by_rays_client_from_outside_the_cluster(cluster: Any, source: Path, tmp_path: Path) -> None:
    curate(source, tmp_path / "local")
    (tmp_path / "marks").mkdir()
    address = f"ray://127.0.0.1:{CLIENT}"
    command = [sys.executable, "-m", "tests.engines.ray.driven", address, str(source), str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "marks")], cwd=Path(__file__).parents[3], check=True, timeout=300)
    assert contents(tmp_path / "run") == contents(tmp_path / "local")


class Where:
    """Drives nothing, and tells of the node that it is on."""

    def drive(self, *_: object) -> None:
        pass

    def rows(self) -> list[str]:
        import ray

        context = ray.get_runtime_context()
        return [context.get_node_id(), *context.get_assigned_resources()]


def test_for_a_client_a_run_is_driven_from_the_head_node(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_Driver", Where)
    of_client: Any = SimpleNamespace(by_client=True)
    said = set(run_shards(of_client, None, [], encodes=False))
    assert said == {cluster.head_node.node_id, "node:__internal_head__"}


def test_a_connection_that_is_lost_as_the_model_is_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    said: list[str] = []
    monkeypatch.setattr(ray, "remote", lambda **_: lambda work: SimpleNamespace(remote=lambda *given: "answer"))
    monkeypatch.setattr(ray, "wait", Mock(side_effect=[([], ["answer"]), ConnectionError("Client is shutting down.")]))
    with pytest.raises(EngineError, match=r"the cluster gave up \(ConnectionError: Client is shutting down\.\)"):
        measured([{"CPU": 1.0}]).model_info(Recipe.build({"read": "a", "model": "demo"}), (), said.append)
    assert said == ["waiting for a node with a CPU to load demo (0 s so far)"]


class Locked(Hook):
    """A filter that cannot be sent anywhere."""

    lock = None

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a lock")


def test_a_filter_that_cannot_be_sent_is_one_line(cluster: Any, source: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"cannot be sent .*cannot pickle a lock.*filters in Python must be picklable"
    ):
        curate(source, tmp_path / "run", Locked(), engine="ray")


class StrangeError(Exception):
    """One that cannot be made anew from its pickle."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} {why}")


@dataclass(frozen=True, kw_only=True)
class Fails(Hook):
    """A filter with a mistake in it."""

    failure: str

    def act(self) -> None:
        raise StrangeError("left", "behind") if self.failure == "StrangeError" else ValueError("a mistake of mine")


def test_what_a_filter_raises_is_raised_as_itself(cluster: Any, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^a mistake of mine") as raised:
        curate(
            source, tmp_path / "run", Fails(failure="ValueError"), engine="ray", write="jsonl:" + str(tmp_path / "o")
        )
    assert str(raised.value) == "a mistake of mine"
    assert raised.value.__cause__ is None
    assert "raised on a node" in raised.value.__notes__[0]
    assert "in act" in raised.value.__notes__[0]
    assert not (tmp_path / "o").exists()


def test_what_cannot_be_pickled_is_told_in_words(cluster: Any, source: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"could not do a shard \(StrangeError: left behind\)"):
        curate(source, tmp_path / "run", Fails(failure="StrangeError"), engine="ray")


def test_a_finished_run_is_quick_wherever_it_ran(
    cluster: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: dict[str, Any] = {"model": "demo", "keep": ["clip_score >= -1"]}
    curate(source, tmp_path / "run", **recipe)
    monkeypatch.setattr(execution, "connected", None)
    before = clipsieve.Run.open(tmp_path / "run").summary
    again = curate(source, tmp_path / "run", engine="ray", **recipe)
    assert again.counts.images.total == 48
    assert again.summary == before, "nothing was scored: the times of when it was"


def test_the_address_of_another_cluster_is_refused(cluster: Any, source: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=rf"^address 10\.0\.0\.1:6379: .* connected to the cluster at {cluster.address}"
    ):
        curate(source, tmp_path / "run", engine="ray", address="10.0.0.1:6379")


@pytest.mark.parametrize(
    ("address", "connected", "same"),
    [
        ("10.0.0.7:6379", "10.0.0.7:6379", True),
        ("head:6379", "10.0.0.7:6379", True),
        ("head:6380", "10.0.0.7:6379", False),
        ("other:6379", "10.0.0.7:6379", False),
        ("nowhere:6379", "10.0.0.7:6379", False),
        ("localhost:6379", "10.0.0.9:6379", True),
        ("127.0.0.1:6379", "10.0.0.9:6379", True),
        ("127.0.0.1:6379", "10.0.0.7:6379", False),
        ("10.0.0.9:6379", "127.0.0.1:6379", True),
        ("ray://localhost:10001", "ray://127.0.0.1:10001", True),
        ("ray://head", "ray://10.0.0.7:10001", True),
        ("ray://head:10001", "10.0.0.7:10001", False),
        ("ray://::1:10001", "ray://127.0.0.1:10001", False),
        ("local", "10.0.0.9:6379", False),
    ],
)
def test_an_address_may_be_written_in_more_than_one_way(
    address: str, connected: str, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"head": "10.0.0.7", "other": "10.0.0.8", "localhost": "127.0.0.1"}

    def look_up(host: str, port: None) -> list[Any]:
        if host not in known and not host[0].isdigit():
            raise socket.gaierror(host)
        return [(None, None, None, "", (known.get(host, host), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert _lead_to_one(address, connected, own="10.0.0.9") is same


def test_the_connected_cluster_by_another_of_its_addresses(cluster: Any, source: Path, tmp_path: Path) -> None:
    port = cluster.address.rpartition(":")[2]
    assert curate(source, tmp_path / "run", engine="ray", address=f"localhost:{port}").counts.images.total == 48


def measured(nodes: Sequence[dict[str, float]], **options: Any) -> Cluster:
    """A cluster whose nodes have these resources, for a recipe with ``options``."""
    client = SimpleNamespace(ray=SimpleNamespace(is_connected=lambda: False))
    found = [{"Alive": True, "Resources": resources} for resources in nodes]
    ray = SimpleNamespace(nodes=lambda: found, util=SimpleNamespace(client=client))
    recipe = Recipe.build({"read": "a", "engine": "ray", **options})
    return _measured(ray, recipe, WorkerEnvironment(folder="."), can_grow=False)


@pytest.mark.parametrize(("nodes", "encoders"), [(1, 2), (1, 6), (2, 3), (2, 4), (3, 64), (8, 1)])
def test_beside_the_encoders_of_a_cpu_there_is_room_for_a_task(nodes: int, encoders: int) -> None:
    cluster = measured([{"CPU": 1.0}] * nodes, encoders=encoders)
    assert cluster.encoder_cpus > 0
    assert round(math.ceil(encoders / nodes) * cluster.encoder_cpus + CPUS, 4) <= 1
    assert cluster.tasks == nodes


@pytest.mark.parametrize(
    ("gpus", "share", "encoders"),
    [
        ([1, 1, 1], 0.6, 3),
        ([3], 0.6, 3),
        ([2, 1, 0], 0.3, 9),
        ([2, 1], None, 3),
        ([3, 1], 2, 1),
        ([0, 0], None, 2),
        ([2, 1], 0, 2),
    ],
)
def test_there_are_as_many_encoders_as_find_room_on_the_gpus(
    gpus: Sequence[float], share: float | None, encoders: int
) -> None:
    cluster = measured([{"CPU": 1.0, "GPU": count} for count in gpus], encoder_gpus=share)
    assert cluster.encoders == (encoders, encoders)


@pytest.mark.parametrize(
    ("device", "share", "there"),
    [("auto", 0, "cpu"), ("auto", 0.5, "auto"), ("auto", None, "auto"), ("cuda:1", 0, "cuda:1"), ("mps", None, "mps")],
)
def test_encoders_that_take_no_gpu_are_on_the_cpu_unless_a_device_is_named(
    device: str, share: float | None, there: str
) -> None:
    recipe = Recipe.build({"read": "a", "device": device})
    placed = measured([{"CPU": 1.0, "GPU": 1.0}], encoder_gpus=share, device=device).placed(recipe)
    assert placed.device == there
    assert placed.identity() == recipe.identity()


def test_a_gpu_that_will_never_come_is_not_waited_for(tmp_path: Path) -> None:
    recipe = Recipe.build({"read": "a", "engine": "ray", "encoder_gpus": 1})
    alone = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    with pytest.raises(RecipeError, match="encoder_gpus 1: this machine, on which the cluster was started, has no GPU"):
        _measured(alone, recipe, WorkerEnvironment(folder="."), can_grow=False)


def test_a_recipe_in_a_file_may_be_told_where_to_run(tmp_path: Path, source: Path) -> None:
    file = tmp_path / "recipe.yaml"
    text = f"read: {source}/*.parquet\nkeep: [blur >= 100]\nengine: ray\naddress: auto\nencoders: 4\n"
    file.write_text(text)
    assert clipsieve.run(file, out=tmp_path / "run", engine="local").counts.images.total == 48
    with pytest.raises(RecipeError, match="address is of a cluster"):
        clipsieve.run(file, out=tmp_path / "run", engine="local", address="auto")
    with pytest.raises(RecipeError, match="a recipe or its parts, not both"):
        clipsieve.run(file, out=tmp_path / "run", vectors=True)


def test_a_model_that_no_node_has_is_one_line(cluster: Any, source: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match=r"on node .*: model folder .* has no config\.json"):
        curate(source, tmp_path / "run", engine="ray", model=str(tmp_path / "model"), keep=["clip_score >= 0.2"])


def test_what_an_earlier_run_found_is_taken_over_on_this_machine_only(tmp_path: Path, source: Path) -> None:
    known: Any = object()
    recipe = Recipe.build({"read": str(source / "*.parquet"), "engine": "ray"})
    with pytest.raises(RecipeError, match="leave engine: ray out"):
        execution.execute(recipe, tmp_path / "run", clipsieve.api.Silent(), known=known)
    with pytest.raises(RecipeError, match="leave engine: ray out"):
        clipsieve.curate(pa.table({"image": [image_bytes()], "text": ["red"]}), engine="ray", keep=["blur >= 100"])


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(EngineError, match=r"cannot connect to a Ray cluster at ray://127\.0\.0\.1:1: .*; start one"):
        curate(source, tmp_path / "run", engine="ray", address="ray://127.0.0.1:1")
    with pytest.raises(EngineError, match=r"IPv6 stands in brackets"):
        curate(source, tmp_path / "run", engine="ray", address="ray://::1:10001")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(EngineError, match=r"cluster at 127\.0\.0\.1:1 \(which RAY_ADDRESS says\): "):
        curate(source, tmp_path / "run", engine="ray")


def test_a_server_of_rays_client_that_did_not_start_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        if len(asked) < fails:
            raise ConnectionAbortedError("Initialization failure from server:\nit died\n")

    monkeypatch.setattr("clipsieve.engines.ray.cluster._check_reachable", lambda address: None)
    fails = CLIENT_ATTEMPTS
    _connect(SimpleNamespace(init=init), "ray://head", "")
    assert len(asked) == fails
    asked.clear()
    fails = 100
    with pytest.raises(EngineError, match="at ray://head: Initialization failure from server: it died; start one"):
        _connect(SimpleNamespace(init=init), "ray://head", "")
    assert len(asked) == CLIENT_ATTEMPTS


def test_where_a_run_goes_is_no_part_of_its_identity() -> None:
    here = Recipe.build({"read": "a"})
    there = Recipe.build(
        {"read": "a", "engine": "ray", "address": "auto", "encoders": "1-8", "encoder_gpus": 0.5, "workers": 8}
    )
    assert there.encoders == (1, 8)
    assert Recipe.build({"read": "a", "engine": "ray", "encoders": 4}).encoders == (4, 4)
    assert here.identity() == there.identity()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"address": "auto"}, "address is of a cluster; say engine: ray too"),
        ({"engine": "ray", "encoders": "8-1"}, "encoders: give a number from 1 on, or two such as 1-8"),
        *[
            ({"engine": "ray", "encoders": wrong}, "encoders: give a number from 1 on")
            for wrong in (0, -1, "-1", "a", "1-", "1-2-3", "1.5", 1.5)
        ],
        ({"engine": "ray", "address": ""}, "address: give auto, HOST:PORT or ray://HOST:PORT"),
        ({"engine": "ray", "encoder_gpus": 1.5}, "encoder_gpus is a part of one GPU or whole ones, not 1.5"),
        ({"engine": "spark"}, "engine: "),
    ],
)
def test_keys_that_cannot_be_right(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.build({"read": "a", **keys})


def test_an_error_policy_that_stops_ends_the_run_at_once(cluster: Any, source: Path, tmp_path: Path) -> None:
    with pytest.raises(CountsError, match="stopped at shard 2, row 4"):
        curate(source, tmp_path / "run", engine="ray", on_error="stop")
