"""What a command prints while it works: a progress bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import json
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from clipsieve.api import Run
from clipsieve.core.ledger import Tally
from clipsieve.report import terminal

EVERY = 60.0
"""Seconds between lines where there is no terminal."""

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Shown:
    """A ``Progress`` for people, on standard error."""

    def __init__(self, *, quiet: bool, what: str = "scoring") -> None:
        self.quiet = quiet
        self.what = what
        self.images = 0
        self.shards = 0
        self.total = 0
        self._began = self._spoke = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._comparing = 0

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """Prints a fact."""
        if not self.quiet:
            err.print(line, markup=False)

    def start(self, shards: int, done: int) -> None:
        """Begins to count shards."""
        self.total, self.shards = shards, done
        self._began = self._spoke = time.monotonic()
        if self.quiet or not err.is_terminal:
            return
        self._begin(self.what, shards, done, unit="shards")

    def _begin(self, what: str, total: int, done: int, *, unit: str) -> None:
        """A bar for ``what``, in place of the one before."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn(unit), TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=err, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(what, total=total, completed=done, rate="")
        self._bar.start()

    def compare(self, done: int, total: int) -> None:
        """Counts the steps of the search for near duplicates."""
        if self.quiet:
            return
        if err.is_terminal:
            if self._comparing != total:
                self._comparing = total
                self._begin("comparing", total, done, unit="blocks")
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=done)
        elif (now := time.monotonic()) - self._spoke >= EVERY:
            self._spoke = now
            err.print(f"comparing: {100 * done / max(total, 1):.0f}% done", markup=False)

    def advance(self, images: int, shard_done: bool) -> None:
        """Counts images and shards; speaks when it is time."""
        self.images += images
        self.shards += shard_done
        now = time.monotonic()
        rate = f"{self.images:,} images, {self.images / max(now - self._began, 1e-3):,.1f}/s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.shards, rate=rate)
        elif not self.quiet and now - self._spoke >= EVERY:
            self._spoke = now
            left = (now - self._began) / max(self.shards, 1) * (self.total - self.shards)
            err.print(f"{self.shards} of {self.total} shards, {rate}, about {left / 60:.0f} min left", markup=False)


def finish(run: Run, *, as_json: bool, quiet: bool) -> None:
    """Prints what came of a run and where it is."""
    if as_json:
        out.print_json(json.dumps(result(run)))
    elif not quiet:
        out.print(terminal.funnel_table(run.counts, run.steps))
        if run.operators:
            out.print()
            out.print(terminal.operator_table(run.operators))
            out.print()
        if run.duplicates:
            out.print(terminal.duplicates_line(run.duplicates), markup=False)
        if run.output is not None:
            out.print(f"output  {run.output}", markup=False)
        out.print(f"ledger  {run.path / 'ledger'}   (clipsieve show {run.path})", markup=False)


def result(run: Run) -> dict[str, object]:
    """A run as plain values for machines."""
    counts = run.counts
    return {
        "run": str(run.path),
        "output": str(run.output) if run.output else None,
        "images": _tally(counts.images),
        "samples": _tally(counts.samples),
        "dropped_by": dict(counts.dropped_by),
        "errors": dict(counts.errors),
        "dedup": run.duplicates,
        "seconds": run.summary.get("seconds"),
    }


def _tally(tally: Tally) -> dict[str, int]:
    return {"total": tally.total, "kept": tally.kept, "dropped": tally.dropped, "failed": tally.failed}
