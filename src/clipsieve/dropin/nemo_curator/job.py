"""A checked pipeline as a recipe with filters in Python, run in this process."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow.parquet as pq

from clipsieve.api.execution import execute
from clipsieve.api.progress import Silent
from clipsieve.api.runs import Run
from clipsieve.core.contracts import Encoder, Filter
from clipsieve.dropin.nemo_curator.batch import FileGroupTask, InterleavedBatch
from clipsieve.dropin.nemo_curator.filters import InterleavedCLIPScoreFilterStage
from clipsieve.dropin.nemo_curator.fused import Fused, NativeFilterStage, encoder
from clipsieve.dropin.nemo_curator.later import LaterStages, Orphans, OwnStage, Unread, materialization_failed
from clipsieve.dropin.nemo_curator.output import Place, place_of
from clipsieve.dropin.nemo_curator.readers import InterleavedReader
from clipsieve.dropin.nemo_curator.stages import BaseInterleavedFilterStage
from clipsieve.dropin.nemo_curator.writers import ON_MATERIALIZE_ERROR, InterleavedWriter
from clipsieve.errors import CountsError
from clipsieve.recipe import Recipe

Task: TypeAlias = InterleavedBatch | FileGroupTask

log = logging.getLogger("clipsieve")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What comes of a job: the tasks of its last stage, and the folder of its run."""

    tasks: list[Task]
    run: Path


@dataclass(frozen=True, kw_only=True)
class Job:
    """A pipeline whose stages go together; plain values, so that it can be sent to another machine."""

    name: str
    reader: InterleavedReader
    stages: tuple[BaseInterleavedFilterStage, ...]
    writer: InterleavedWriter | None
    scratch: Path | None = None
    """Where the run is when there is no writer."""

    @property
    def fused(self) -> Fused:
        """The first stages, as many as are rules of one recipe."""
        return _leading(self.stages)

    def filters(self) -> list[Filter]:
        """All that follows the rules."""
        found: list[Filter] = []
        if self.stages and not self._drops_invalid:
            found.append(Orphans())
        rest = self._rest
        while rest:
            several = _leading(rest)
            found.append(LaterStages(several) if several.stages else OwnStage(rest[0], self.name))
            rest = rest[max(1, len(several.stages)) :]
        if self._rest and not self.fused.reads_images and self.policy is not None:
            found.append(Unread(self.policy))
        return found

    @property
    def needs_gpu(self) -> bool:
        """Whether any stage asks for a GPU."""
        return any(stage.resources.requires_gpu for stage in self.stages)

    @property
    def _rest(self) -> tuple[BaseInterleavedFilterStage, ...]:
        return self.stages[len(self.fused.stages) :]

    @property
    def _drops_invalid(self) -> bool:
        """Whether invalid rows are gone from the beginning."""
        return bool(self.stages) and self.stages[0].drop_invalid_rows

    @property
    def policy(self) -> str | None:
        """What becomes of images that cannot be read; None where nothing is read."""
        return self.writer.on_materialize_error if self.writer and self.writer.materialize_on_write else None

    def recipe(self, write: Mapping[str, Any]) -> Recipe:
        """The whole as a recipe."""
        read = {**self.reader.read(), "invalid_rows": "drop" if self._drops_invalid else "keep"}
        said = {"read": read, "write": write, **self.fused.request()}
        if not self.fused.reads_images and not self._rest and self.policy is not None:
            said["on_error"] = ON_MATERIALIZE_ERROR[self.policy]
        return Recipe.build(said)

    def absolute(self) -> Job:
        """The same with absolute paths, for another working directory."""
        reader, writer = copy(self.reader), copy(self.writer)
        reader.file_paths = reader.paths
        if writer is not None:
            writer.path = writer.output_dir = str(writer.folder)
        stages = [copy(stage) for stage in self.stages]
        for stage in stages:
            if isinstance(stage, InterleavedCLIPScoreFilterStage):
                stage.model_dir = stage.model
        return replace(self, reader=reader, stages=tuple(stages), writer=writer)

    def execute(self) -> Finished:
        """Runs it in this process."""
        own = [stage for stage in self.stages if not Fused(()).takes(stage)]
        with self.reader.storage():
            for stage in own:
                stage.setup()
            try:
                return self._write() if self.writer is not None else self._gather()
            finally:
                for stage in own:
                    stage.teardown()

    def _write(self) -> Finished:
        writer = self.writer
        assert writer is not None
        filters = self.filters()

        def recipe(place: Place) -> Recipe:
            where = {"path": f"{writer.folder}/", "prefix": place.prefix}  # a folder, whatever its name ends in
            return self.recipe({"format": writer.format, **where, "embed": writer.materialize_on_write})

        # What a filter in Python does is no part of a run's identity, so that such a run begins anew.
        resume = all(isinstance(one, Orphans) for one in filters)
        self._model()  # found before anything that is there is replaced
        place = place_of(self.name, self.reader, writer, recipe, resume=resume)
        run = self._run(recipe(place), place.run, filters)
        files = [path for path in place.files() if path.suffix == writer.suffix]
        tasks: list[Task] = [
            FileGroupTask(
                task_id=path.stem,
                dataset_name=self.name,
                data=[str(path)],
                _metadata={"format": writer.format, "source_files": sources},
            )
            for path, sources in _with_sources(files, place.prefix, run)
        ]
        return Finished(tasks=tasks, run=run.path)

    def _gather(self) -> Finished:
        assert self.scratch is not None
        out = self.scratch / "run"
        recipe = self.recipe({"format": "parquet"})
        run = self._run(recipe, out, self.filters())
        files = sorted((out / "output").glob("[0-9]*.parquet"))
        tasks: list[Task] = [
            InterleavedBatch(
                task_id=path.stem,
                dataset_name=self.name,
                data=pq.read_table(path),
                _metadata={"source_files": sources},
            )
            for path, sources in _with_sources(files, "", run)
        ]
        return Finished(tasks=tasks or [InterleavedBatch(dataset_name=self.name)], run=run.path)

    def _model(self) -> Encoder | None:
        return encoder(*self.fused.model) if self.fused.model else None

    def _run(self, recipe: Recipe, out: Path, filters: Sequence[Filter]) -> Run:
        try:
            return execute(recipe, out, _Logged(), filters, self._model())
        except CountsError as failure:
            if recipe.on_error != "stop" or (out / "summary.json").exists():
                raise
            raise materialization_failed(str(failure).partition("; ")[0]) from None


def _leading(stages: Sequence[BaseInterleavedFilterStage]) -> Fused:
    """The first of ``stages``, as many as are rules of one request."""
    fused = Fused(())
    for stage in stages:
        if not fused.takes(stage):
            break
        assert isinstance(stage, NativeFilterStage)
        fused = Fused((*fused.stages, stage))
    return fused


def _with_sources(files: Sequence[Path], prefix: str, run: Run) -> list[tuple[Path, list[str]]]:
    """Each output file with the source files of its shard."""
    shards = run.shards()
    return [(path, [piece.path for piece in shards[int(path.stem[len(prefix) :])].pieces]) for path in files]


class _Logged(Silent):
    """What a run has to say, in the log."""

    def say(self, line: str) -> None:
        """A warning as one."""
        kind, colon, rest = line.partition("warning: ")
        if colon and not kind:
            log.warning("%s", rest)
        else:
            log.info("%s", line)
