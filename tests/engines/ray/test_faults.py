"""A cluster loses what clusters lose, and the run ends as if it had not: every shard once, the ledger the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from clipsieve.engines.ray import pipeline
from clipsieve.errors import EngineError, SourceError
from clipsieve.runfolder import RunFolder
from tests.engines.ray.conftest import NODE, contents, curate
from tests.engines.ray.hooks import Dies, DiesInEncoders, DiesOf, Slow, Waits

pytest.importorskip("ray.data")

ROOT = Path(__file__).parents[3]
MODEL = {"model": "demo", "keep": ["blur >= 100", "clip_score >= -1"]}


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run on this machine gives."""
    curate(source, out := tmp_path_factory.mktemp("whole"))
    assert len(RunFolder(out).stored_shards()) == 8
    return contents(out)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where hooks leave their marks."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def meanwhile(wait_for: Callable[[], Any], then: Callable[[Any], Any]) -> Future[Any]:
    """Does ``then`` as soon as there is something to wait for, beside the run; the result tells that it was done."""

    def watch() -> Any:
        until = time.monotonic() + 180
        while not (found := wait_for()):
            assert time.monotonic() < until, "what was waited for has not come"
            time.sleep(0.05)
        return then(found)

    return ThreadPoolExecutor(1).submit(watch)


def workers(named: str) -> list[psutil.Process]:
    """The processes of the cluster that do what is named so."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if named in " ".join(process.cmdline()[:1]):
                found.append(process)
    return found


def test_worker_processes_that_are_killed(cluster: Any, source: Path, tmp_path: Path, marks: Path, whole: Any) -> None:
    curate(source, tmp_path / "run", Dies(marks=marks, times=2), engine="ray")
    assert len(list(marks.iterdir())) == 2
    assert contents(tmp_path / "run") == whole


def test_a_shard_that_kills_its_process_every_time_is_named_when_the_others_are_done(
    cluster: Any, source: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "TRIES", 1)
    message = r"shard 5 \(.*5\.parquet\): the 2 processes that worked on it have all died.*; the other shards are done$"
    with pytest.raises(EngineError, match=message):
        curate(source, tmp_path / "run", DiesOf(text="a red thing number 32"), engine="ray")
    assert RunFolder(tmp_path / "run").done("ledger") == {0, 1, 2, 3, 4, 6, 7}
    curate(source, tmp_path / "run", engine="ray")
    assert contents(tmp_path / "run") == whole


def test_a_node_that_is_removed(cluster: Any, source: Path, tmp_path: Path, marks: Path, whole: Any) -> None:
    node = cluster.add_node(**NODE)
    hook = Slow(marks=marks, seconds=2, node=node.node_id)
    removal = meanwhile(
        lambda: list(marks.glob(f"{node.node_id}-*")), lambda _: cluster.remove_node(node, allow_graceful=False)
    )
    curate(source, tmp_path / "run", hook, engine="ray")
    removal.result()  # it had a shard in work
    assert contents(tmp_path / "run") == whole


def test_a_slow_node_does_less_and_nothing_waits_for_it_twice(
    cluster: Any, source: Path, tmp_path: Path, marks: Path, whole: Any
) -> None:
    slow = cluster.head_node.node_id
    curate(source, tmp_path / "run", Waits(marks=marks, seconds=60, node=slow, others=5), engine="ray")
    done = [mark.name.startswith(slow) for mark in marks.iterdir()]
    assert len(done) == 8
    assert 1 <= sum(done) <= 3
    assert contents(tmp_path / "run") == whole


def test_an_encoder_that_is_killed_for_its_memory(cluster: Any, source: Path, tmp_path: Path, marks: Path) -> None:
    curate(source, tmp_path / "local", **MODEL)

    def kill(encoders: Sequence[psutil.Process]) -> int:
        left = 8 - len(RunFolder(tmp_path / "run").done("ledger"))
        encoders[0].kill()
        return left

    killed = meanwhile(lambda: list(marks.iterdir()) and workers("Encode"), kill)
    run = curate(source, tmp_path / "run", Slow(marks=marks, seconds=0.5), engine="ray", encoders=1, **MODEL)
    assert killed.result() > 0
    assert run.counts.images.total == 48
    assert contents(tmp_path / "run") == contents(tmp_path / "local")


def test_an_encoder_on_a_gpu_that_is_killed_while_it_starts(
    cluster: Any, source: Path, tmp_path: Path, marks: Path
) -> None:
    node = cluster.add_node(**NODE, num_gpus=1)  # one in Ray's books alone
    try:
        curate(source, tmp_path / "run", DiesInEncoders(marks=marks), engine="ray", **MODEL)
    finally:
        cluster.remove_node(node)
    assert list(marks.iterdir()) == [marks / "died"]
    curate(source, tmp_path / "local", **MODEL)
    assert contents(tmp_path / "run") == contents(tmp_path / "local")  # the node's GPU is none: it used the CPU


def test_the_driver_that_is_killed(cluster: Any, source: Path, tmp_path: Path, marks: Path, whole: Any) -> None:
    command = [sys.executable, "-m", "tests.engines.ray.driven"]
    given = [cluster.address, str(source), str(tmp_path), str(marks)]
    driver = subprocess.Popen([*command, *given], cwd=ROOT, stderr=subprocess.PIPE)
    ledger = tmp_path / "run" / "ledger"
    until = time.monotonic() + 180
    while len(list(ledger.glob("0*.parquet"))) < 2:
        assert driver.poll() is None, driver.stderr and driver.stderr.read().decode()
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    while workers("MapBatches"):  # its tasks go a little later
        assert time.monotonic() < until
        time.sleep(0.05)
    assert 2 <= len(RunFolder(tmp_path / "run").done("ledger")) < 8
    shutil.copytree(tmp_path / "run", tmp_path / "here")
    curate(source, tmp_path / "here")
    curate(source, tmp_path / "run", engine="ray")
    assert contents(tmp_path / "here") == contents(tmp_path / "run") == whole


def test_a_shard_whose_file_is_corrupt_ends_the_run_when_the_others_are_done(
    cluster: Any, source: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "source")
    path = tmp_path / "source" / "5.parquet"
    data, times = path.read_bytes(), path.stat()
    path.write_bytes(data[:4] + bytes(60) + data[64:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for out, options in (("run", {}), ("by model", MODEL)):
        with pytest.raises(SourceError, match=r"5\.parquet.*; the other shards are done$"):
            curate(tmp_path / "source", tmp_path / out, engine="ray", **options)
        assert RunFolder(tmp_path / out).done("ledger") == {0, 1, 2, 3, 4, 6, 7}
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    curate(tmp_path / "source", tmp_path / "run", engine="ray")
    curate(tmp_path / "source", tmp_path / "local")
    assert contents(tmp_path / "run") == contents(tmp_path / "local")
