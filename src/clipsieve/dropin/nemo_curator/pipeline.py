"""``Pipeline``: a reader, filters and a writer as one native run, in which each image is read and decoded once.

The filters become rules of a recipe, in their order, as far as one recipe can say them; from the first that it cannot
(a stage of one's own, a second ratio, another model) on they follow as filters in Python. A run without a writer gives
its batches. The run itself, with its ledger and counts, is ``pipeline.last_run``.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow.compute as pc

from clipsieve.api.runs import Run
from clipsieve.dropin.nemo_curator.fused import Fused
from clipsieve.dropin.nemo_curator.job import Finished, Job, Task
from clipsieve.dropin.nemo_curator.readers import InterleavedReader
from clipsieve.dropin.nemo_curator.stages import BaseInterleavedFilterStage, ProcessingStage
from clipsieve.dropin.nemo_curator.writers import InterleavedWriter
from clipsieve.errors import UsageError

log = logging.getLogger("clipsieve")


class Executor(Protocol):
    """Where a pipeline runs, if not here."""

    def execute(self, job: Job) -> Finished:
        """Runs a job to its end."""
        ...


class Pipeline:
    """Stages in order: a reader, any number of filters, and at most one writer at the end."""

    def __init__(
        self,
        name: str,
        description: str | None = None,
        stages: Sequence[ProcessingStage] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """``name`` and the source give output files their names; ``config`` is kept and changes nothing."""
        self.name = name
        self.description = description
        self.stages: list[ProcessingStage] = []
        self.config = dict(config or {})
        self.last_run: Run | None = None
        """The run of the last ``run``, as ``clipsieve.run`` gives it."""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        for stage in stages or ():
            self.add_stage(stage)

    def add_stage(self, stage: ProcessingStage) -> Pipeline:
        """Adds a stage behind the others and returns the pipeline. Raises ``TypeError`` for anything else."""
        if not isinstance(stage, ProcessingStage):
            raise TypeError(f"a stage is a ProcessingStage, not {type(stage).__name__}")
        self.stages.append(stage)
        return self

    def describe(self) -> str:
        """The stages in words, and what is run: rules, then filters in Python."""
        lines = [f"Pipeline: {self.name}", f"Description: {self.description or 'none'}", f"Stages: {len(self.stages)}"]
        lines += [f"Stage {number}: {stage.name}" for number, stage in enumerate(self.stages, 1)]
        job = self._job()
        lines += [f"Rule: {rule}" for rule in job.fused.request()["keep"]]
        lines += [f"Filter in Python: {one.name}" for one in job.filters()]
        return "\n".join(lines)

    def run(self, executor: Executor | None = None) -> list[Task]:
        """Runs the pipeline here, or where ``executor`` says, and returns the tasks of its last stage.

        A task is a file of the writer's, or without one a batch for each stretch of the source. Raises ``UsageError``
        (a ``ValueError``) when the stages do not go together, ``RuntimeError`` for an image that cannot be read under
        ``on_materialize_error='error'``, ``FileExistsError`` under ``mode='error'``.
        """
        _check_executor(executor)
        job = self._job()
        if job.writer is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="clipsieve-")
            job = replace(job, scratch=Path(self._scratch.name))
        finished = job.execute() if executor is None else executor.execute(job)
        self.last_run = Run(finished.run)
        if finished.run.exists():  # one on another machine may be out of reach
            self._tell(self.last_run, job)
        return finished.tasks

    def _tell(self, run: Run, job: Job) -> None:
        """What became of the images, in the log."""
        images = run.counts.images
        told = f"{images.kept:,} kept, {images.dropped:,} dropped, {images.failed:,} failed"
        where = "" if job.writer is None else f"; ledger in {run.path}"
        log.info("%s: %d images = %s%s", self.name, images.total, told, where)
        if job.policy == "warn":
            kept = run.ledger.filter(pc.equal(run.ledger["verdict"], "kept"))["error"].drop_null().to_pylist()
            if kept:
                log.warning("%s: images that cannot be read stay, without bytes: %s", self.name, dict(Counter(kept)))

    def _job(self) -> Job:
        """The stages, checked."""
        if not self.stages or not isinstance(self.stages[0], InterleavedReader):
            raise UsageError(f"pipeline {self.name!r}: add a reader first, such as InterleavedParquetReader")
        reader, *others = self.stages
        assert isinstance(reader, InterleavedReader)
        writer = others[-1] if others and isinstance(others[-1], InterleavedWriter) else None
        if writer is not None:
            others.pop()
        filters: list[BaseInterleavedFilterStage] = []
        for stage in others:
            if not isinstance(stage, BaseInterleavedFilterStage):
                raise UsageError(
                    f"pipeline {self.name!r}: stage {stage.name} cannot stand between a reader and a writer"
                )
            if not Fused(()).takes(stage):
                _check_own(stage)
            filters.append(stage)
        return Job(name=self.name, reader=reader, stages=tuple(filters), writer=writer)


def _check_executor(executor: Any) -> None:
    """Raises ``UsageError`` for what is no executor, such as a name or a class."""
    if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "execute", None))):
        said = executor.__name__ if isinstance(executor, type) else repr(executor)
        raise UsageError(f"pipeline.run takes an executor such as XennaExecutor(), or nothing, not {said}")


def _check_own(stage: BaseInterleavedFilterStage) -> None:
    """Raises ``UsageError`` for a stage that does more than to choose rows."""
    kind = type(stage)
    if kind.process is not BaseInterleavedFilterStage.process:
        raise UsageError(
            f"stage {stage.name} overrides process; in a pipeline a filter chooses rows: override content_keep_mask"
        )
