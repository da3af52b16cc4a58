"""Filters that drop nothing and do something to the process they run in: how the tests let a cluster go wrong."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from clipsieve.core.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Hook:
    """Does nothing at all."""

    name: ClassVar[str] = "hook"
    needs_bytes: ClassVar[bool] = False

    def __call__(self, batch: Batch) -> list[None]:
        self.act()
        return [None] * batch.table.num_rows

    def act(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Dies(Hook):
    """Kills its process, as the kernel does when memory is short, so many times in all."""

    marks: Path
    times: int = 1

    def act(self) -> None:
        for number in range(self.times):
            try:
                (self.marks / f"died-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class DiesOf(Hook):
    """Kills its process whenever it sees a text."""

    text: str

    def __call__(self, batch: Batch) -> list[None]:
        if self.text in batch.table["text"].to_pylist():
            os.kill(os.getpid(), signal.SIGKILL)
        return [None] * batch.table.num_rows


@dataclass(frozen=True, kw_only=True)
class DiesInEncoders(Hook):
    """Kills the first process with the model that it comes to, before that has begun."""

    marks: Path

    def __setstate__(self, state: dict[str, Any]) -> None:
        import ray

        self.__dict__.update(state)
        if ray.get_runtime_context().get_actor_id() is not None:
            try:
                (self.marks / "died").touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class Slow(Hook):
    """Takes its time on one node, or on all, and leaves a mark for each time and node."""

    marks: Path
    seconds: float
    node: str | None = None

    def act(self) -> None:
        import ray

        here = ray.get_runtime_context().get_node_id()
        (self.marks / f"{here}-{time.monotonic_ns()}-{os.getpid()}").touch()
        if self.node in (None, here):
            self.wait()

    def wait(self) -> None:
        time.sleep(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Waits(Slow):
    """Waits on one node until others have done so many shards, and leaves marks as ``Slow`` does."""

    others: int

    def wait(self) -> None:
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            if sum(not mark.name.startswith(str(self.node)) for mark in self.marks.iterdir()) >= self.others:
                return
            time.sleep(0.05)
