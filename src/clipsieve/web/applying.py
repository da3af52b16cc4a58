"""``apply`` from the page: one at a time, in a thread, into a new run folder beside the run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Literal

from clipsieve.api.runs import Run
from clipsieve.core import storage
from clipsieve.core.text import printable
from clipsieve.errors import ClipsieveError, UsageError
from clipsieve.recipe import Keep
from clipsieve.web.chosen import command
from clipsieve.web.questions import Apply

FILL, FILL_HERE = "--fill computes", "the box above, when ticked, computes"
"""How a refusal for want of scores names the remedy, to the command line and to the page."""

ENDING = 10
"""Seconds that an ``apply`` has to come to the end of a batch when the server ends."""

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
    fillable: bool = False
    """Whether it failed for want of scores that ``fill`` would compute."""
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    stopped: bool = False
    """Whether it is to end at the next occasion."""

    def say(self, line: str) -> None:
        """A fact worth a line."""
        self.lines = [*self.lines, printable(line)][-LINES:]

    def start(self, shards: int, done: int) -> None:
        """Work begins."""
        self.shards, self.done = shards, done

    def advance(self, images: int, shard_done: bool) -> None:
        """Counts images and shards."""
        self._heed()
        self.images += images
        self.done += shard_done

    def compare(self, done: int, total: int) -> None:
        """Counts the steps of the search for near duplicates."""
        self._heed()
        self.compared = (done, total)

    def _heed(self) -> None:
        if self.stopped:
            raise SystemExit

    def told(self) -> dict[str, Any]:
        """As the page hears it."""
        seconds = time.monotonic() - self.began if self.state == "running" else self.seconds
        return {
            "name": self.name, "state": self.state, "shards": self.shards, "done": self.done, "images": self.images,
            "compared": self.compared, "lines": self.lines, "result": self.result, "fillable": self.fillable,
            "seconds": round(seconds, 1),
        }  # fmt: skip


class Applying:
    """Who applies rules for the page."""

    def __init__(self, run: Run, work: Work) -> None:
        self._run = run
        self._work = work
        self._lock = Lock()
        self._job: Job | None = None
        self._asked: Apply | None = None
        self._thread: Thread | None = None

    def suggest(self) -> str:
        """A name for the new run folder that is free."""
        stem = f"{self._run.path.resolve().name}-apply"
        number = 1
        while _taken(self._place(name := stem if number == 1 else f"{stem}-{number}")):
            number += 1
        return name

    def begin(self, asked: Apply) -> dict[str, Any]:
        """Starts an ``apply``. Raises ``UsageError`` when one is under way or the name is taken."""
        with self._lock:
            if self._job is not None and self._job.state == "running":
                raise UsageError(f"{self._job.name} is being written; wait until it is done")
            out = self._place(asked.name)
            if _taken(out):
                raise UsageError(f"{asked.name} already exists{_go_on(out)}; choose another name")
            self._asked, self._job = asked, (job := Job(name=asked.name))
        # A daemon: who stops the server need not wait long, and the same command goes on with what is committed.
        self._thread = Thread(target=self._apply, args=(job, asked, out), daemon=True)
        self._thread.start()
        return job.told()

    def told(self) -> dict[str, Any] | None:
        """How it goes, or went; None before the first."""
        return None if self._job is None else self._job.told()

    def stop(self) -> str | None:
        """Ends an ``apply`` that is under way, as the server ends, and says how to go on with it."""
        if self._job is None or self._asked is None or self._thread is None:
            return None
        self._job.stopped = True
        self._thread.join(ENDING)
        if self._job.state != "running":
            return None
        out = self._place(self._asked.name)
        return f"{self._asked.name} is not finished; to go on: {_resuming(self._run.path, self._asked.keep, out)}"

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
        except SystemExit:  # at the end of the server, which says how to go on
            return
        except ClipsieveError as failure:
            job.fillable = FILL in str(failure)
            job.say(str(failure).replace(FILL, FILL_HERE))
            state = "failed"
        except Exception as failure:  # of a thread that nobody waits for, the page would never hear
            job.say(f"apply failed: {type(failure).__name__}: {failure}; clipsieve apply --debug shows where")
            state = "failed"
        job.seconds = time.monotonic() - job.began
        job.state = state


def _taken(out: Path) -> bool:
    return os.path.lexists(out) if storage.is_local(out) else storage.exists(out)


def _go_on(out: Path) -> str:
    """What to add about a folder whose name is taken when it is a run that is not finished."""
    if not storage.exists(out / "shards.json") or storage.exists(out / "summary.json"):
        return ""
    begun = Run.open(out)
    if source := begun.executed.get("scores_of"):
        return f", not finished; to go on with it: {_resuming(source, begun.recipe.keep, out)}"
    return ", not finished; its own command goes on with it"


def _resuming(run: str | Path, keep: Sequence[Keep], out: Path) -> str:
    told = command(run, keep, "--fill", "--out", str(out))  # which computes nothing where nothing is lacking
    return told or f"clipsieve.apply_run in Python, with the rules of {printable(str(out))} and fill=True"
