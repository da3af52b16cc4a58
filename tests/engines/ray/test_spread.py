"""A ``Spread`` over tasks: in order, a few at a time, and what the work raises is raised as itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipsieve.engines.ray.spread import InTasks
from clipsieve.engines.ray.worker_environment import WorkerEnvironment
from clipsieve.errors import EngineError, OutputError

pytest.importorskip("ray.data")


def spread() -> InTasks:
    return InTasks(environment=WorkerEnvironment(folder=os.getcwd()))


def test_results_come_in_the_order_of_the_items_and_items_are_asked_for_as_there_is_room(cluster: Any) -> None:
    asked = []

    def items() -> Iterator[int]:
        for number in range(20):
            asked.append(number)
            yield number

    results = spread()(lambda number: number * number, items())
    assert next(results) == 0
    assert len(asked) <= 6
    assert list(results) == [number * number for number in range(1, 20)]


def test_what_the_work_raises_comes_where_its_result_would_have(cluster: Any) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise OutputError("no room")
        return number

    results = spread()(work, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OutputError, match=r"^no room$"):
        next(results)


def test_a_process_that_dies_is_begun_anew(cluster: Any, tmp_path: Path) -> None:
    def work(number: int) -> int:
        try:
            (tmp_path / "died").touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("dead")

    assert list(spread()(work, range(4))) == [0, 1, 2, 3]


def test_paths_mean_in_a_task_what_they_mean_here(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    assert list(spread()(lambda path: Path(path).exists(), ["here", "there"])) == [True, False]


@pytest.mark.parametrize("connected", [True, False])
def test_what_fails_as_the_connection_is_lost_is_not_hidden(
    cluster: Any, connected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def cancel(reference: Any) -> None:
        raise ConnectionError("Client is shutting down.") if connected else RuntimeError("Ray has not been started yet")

    def items() -> Iterator[int]:
        yield 1
        monkeypatch.setattr(ray, "cancel", cancel)
        monkeypatch.setattr(ray, "is_initialized", lambda: connected)
        raise OutputError("no room")

    with pytest.raises(OutputError, match=r"^no room$"):
        list(spread()(lambda number: number, items()))


def test_what_always_kills_its_process_ends_in_one_line(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipsieve.engines.ray.spread.TRIES", 1)
    with pytest.raises(EngineError, match=r"the cluster gave up .*run the same command again"):
        list(spread()(lambda number: os.kill(os.getpid(), signal.SIGKILL), [1]))
