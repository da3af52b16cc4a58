"""A cluster of several nodes in this machine, for the tests of a file, and a source of a few small shards."""

from __future__ import annotations

import logging
import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clipsieve
from clipsieve.api import Run
from tests.engines.ray.hooks import Hook
from tests.fakes import image_bytes

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def _free_port() -> int:
    """One that no process of Ray's takes by chance: those are higher."""
    while True:
        port = random.randint(20_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


CLIENT = _free_port()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, connected to this process."""
    ray = pytest.importorskip("ray")
    utils = pytest.importorskip("ray.cluster_utils")
    root = str(Path(__file__).parents[3])  # the workers import the tests' filters
    if root not in (before := os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, before)])
    # Else the server of a client may die as it starts: https://github.com/ray-project/ray/issues/63202
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # A node that is gone is missed after a second, not after half a minute.
    checks = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 250, "health_check_failure_threshold": 4}
    head = {**NODE, "include_dashboard": False, "_system_config": checks, "ray_client_server_port": CLIENT}
    made = utils.Cluster(initialize_head=True, head_node_args=head)
    made.add_node(**NODE)
    ray.init(made.address, log_to_driver=False, logging_level=logging.ERROR)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight files of six captioned images, each a shard: some blurred, one broken."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(8):
        seeds = range(number * 6, number * 6 + 6)
        images = [image_bytes("red" if i % 3 else "blue", (60, 40), sharp=i % 7 != 3, seed=i) for i in seeds]
        if number == 2:
            images[4] = images[4][:50]
        table = pa.table({"image": images, "text": [f"a red thing number {i}" for i in seeds]})
        pq.write_table(table, folder / f"{number}.parquet")
    return folder


def curate(source: Path, out: Path, hook: Hook | None = None, **options: Any) -> Run:
    """Runs blur over the source, each file a shard."""
    files = sorted(source.glob("*.parquet"))
    read = {"path": [str(file) for file in files], "shard_bytes": max(file.stat().st_size for file in files)}
    given = {"read": read, "keep": ["blur >= 100"], "write": "jsonl", **options}
    return clipsieve.run(**given, out=out, filters=[hook or Hook()])


def contents(folder: Path) -> dict[str, bytes]:
    """What a run has committed and written."""
    kept = ("ledger", "output", "vectors")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in kept
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }
