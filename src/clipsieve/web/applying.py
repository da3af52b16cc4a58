"""``apply`` from the page: one at a time, in a thread, into a new run folder beside the run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Literal

from clipsieve.api.runs import Run
from clipsieve.core.text import printable
from clipsieve.errors import ClipsieveError, UsageError
from clipsieve.web.questions import Apply

LINES = 50
"""Lines of progress that are held."""

Work = Callable[..., Run]
"""``clipsieve.api.apply_run``, or what stands in for it in a test."""


@dataclass(kw_only=True)
class Job:
    """An ``apply`` under way, or what came of it. It is a ``Progress``, heard from the working thread."""

    name: str
    state: Literal["running", "done", "failed"] = "running"
    shards: int = 0
    done: int = 0
    images: int = 0
    compared: tuple[int, int] | None = None
    lines: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def say(self, line: str) -> None:
        """A fact worth a line."""
        self.lines = [*self.lines, printable(line)][-LINES:]

    def start(self, shards: int, done: int) -> None:
        """Work begins."""
        self.shards, self.done = shards, done

    def advance(self, images: int, shard_done: bool) -> None:
        """Counts images and shards."""
        self.images += images
        self.done += shard_done

    def compare(self, done: int, total: int) -> None:
        """Counts the steps of the search for near duplicates."""
        self.compared = (done, total)

    def told(self) -> dict[str, Any]:
        """As the page hears it."""
        seconds = time.monotonic() - self.began if self.state == "running" else self.seconds
        return {
            "name": self.name, "state": self.state, "shards": self.shards, "done": self.done, "images": self.images,
            "compared": self.compared, "lines": self.lines, "result": self.result, "seconds": round(seconds, 1),
        }  # fmt: skip


class Applying:
    """Who applies rules for the page."""

    def __init__(self, run: Run, work: Work) -> None:
        self._run = run
        self._work = work
        self._lock = Lock()
        self._job: Job | None = None

    def suggest(self) -> str:
        """A name for the new run folder that is free."""
        stem = f"{self._run.path.resolve().name}-apply"
        number = 1
        while os.path.lexists(self._place(name := stem if number == 1 else f"{stem}-{number}")):
            number += 1
        return name

    def begin(self, asked: Apply) -> dict[str, Any]:
        """Starts an ``apply``. Raises ``UsageError`` when one is under way or the name is taken."""
        with self._lock:
            if self._job is not None and self._job.state == "running":
                raise UsageError(f"{self._job.name} is being written; wait until it is done")
            out = self._place(asked.name)
            if os.path.lexists(out):
                raise UsageError(f"{asked.name} is there already; choose another name")
            self._job = job = Job(name=asked.name)
        # A daemon: who stops the server need not wait, and the same command goes on with what is committed.
        Thread(target=self._apply, args=(job, asked, out), daemon=True).start()
        return job.told()

    def told(self) -> dict[str, Any] | None:
        """How it goes, or went; None before the first."""
        return None if self._job is None else self._job.told()

    def _place(self, name: str) -> Path:
        return self._run.path.resolve().parent / name

    def _apply(self, job: Job, asked: Apply, out: Path) -> None:
        try:
            done = self._work(self._run, asked.values, out=out, fill=asked.fill, progress=job)
            images = done.counts.images
            job.result = {
                "run": printable(str(done.path)),
                "output": printable(str(done.output)) if done.output else None,
                "kept": images.kept, "dropped": images.dropped, "failed": images.failed,
            }  # fmt: skip
            state: Literal["done", "failed"] = "done"
        except ClipsieveError as failure:
            job.say(str(failure))
            state = "failed"
        except Exception as failure:  # of a thread that nobody waits for, the page would never hear
            job.say(f"apply failed: {type(failure).__name__}: {failure}; clipsieve apply --debug shows where")
            state = "failed"
        job.seconds = time.monotonic() - job.began
        job.state = state
