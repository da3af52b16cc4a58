"""A run on disk: its recipe, its ledger, its counts, and its images again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import yaml
from rich.console import Console

from clipsieve import readers
from clipsieve.api.added import ledger_part, whole_ledger
from clipsieve.core import ledger
from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Reader, Shard, Vectors
from clipsieve.core.ledger import Counts
from clipsieve.core.spread import Spread, in_threads
from clipsieve.core.storage import configure, exists, is_file, place, read, threads
from clipsieve.engines.downloads import KeptReader
from clipsieve.engines.ledger_columns import ABOUT
from clipsieve.engines.usage import Usage
from clipsieve.errors import RunFolderError
from clipsieve.plan import Plan, make_plan
from clipsieve.readers.limit import FirstSamples
from clipsieve.readers.source import OpenedSource
from clipsieve.recipe import Recipe
from clipsieve.report import terminal
from clipsieve.report.facts import Facts
from clipsieve.runfolder import RunFolder, undamaged


@dataclass(frozen=True)
class Run:
    """A finished (or resumable) run: its folder, its ledger and its counts."""

    path: Path
    spread: Spread | None = field(default=None, repr=False, compare=False)
    """Workers elsewhere that count its ledger; None: threads of this process do."""

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Opens a run folder. Raises ``RunFolderError`` when it is none."""
        folder = place(path)
        if not is_file(folder / "recipe.yaml"):
            if not exists(folder):
                raise RunFolderError(f"no run at {path}: there is no such folder")
            raise RunFolderError(f"{path} is not a run folder: it has no recipe.yaml")
        return cls(folder)

    @cached_property
    def ledger(self) -> pa.Table:
        """One row per input image, and one per sample without images; see ``clipsieve.core.ledger``.

        Columns that were added since, such as labels, are behind the others.
        """
        return whole_ledger(RunFolder(self.path))

    @cached_property
    def columns(self) -> pa.Schema:
        """The columns of the ledger as it was written, without those that were added since."""
        return RunFolder(self.path).schema("ledger")

    @cached_property
    def counts(self) -> Counts:
        """What became of the images and samples, by rule and by error; read a part at a time."""
        folder = RunFolder(self.path)
        spread = self.spread or partial(in_threads, threads=threads(self.path))
        return ledger.total(spread(partial(_counted, folder), folder.committed()))

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as executed."""
        return Recipe.load(self.path / "recipe.yaml")

    @cached_property
    def executed(self) -> Mapping[str, Any]:
        """Versions, encoder and layout of the execution."""
        path = self.path / "recipe.yaml"
        with undamaged(path):
            return dict(yaml.safe_load(read(path).decode())["executed"])

    @property
    def fetched_in(self) -> list[Path]:
        """The run folders in which images by URL may be kept: its own, and that of the run that it was made from."""
        return [self.path, *map(place, self.executed.get("fetched_in") or ())]

    @property
    def passed_on(self) -> Mapping[str, Any]:
        """What a run that is made from this one records, to find the images that are kept."""
        there = [str(path.absolute()) for path in self.fetched_in if exists(path / "fetched")]
        return {"fetched_in": there} if there else {}

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """Seconds, and the independent counts of the source; empty for an unfinished run."""
        path = self.path / "summary.json"
        if not exists(path):
            return {}
        with undamaged(path, "remove it and run the same command again"):
            return dict(json.loads(read(path)))

    @property
    def operators(self) -> list[Usage]:
        """How busy the parts of a cluster were; empty for a run on one machine."""
        return [Usage(**one) for one in self.summary.get("operators", ())]

    def shards(self) -> tuple[Shard, ...]:
        """The shards of a finished run. Raises ``RunFolderError`` when some are not done."""
        folder = RunFolder(self.path)
        shards = folder.stored_shards() if folder.has_shards() else ()
        if not shards:
            raise RunFolderError(f"{self.path} is not finished; run its command again first")
        if (done := len(folder.readable())) < len(shards):
            raise RunFolderError(
                f"{self.path} is not finished ({done} of {len(shards)} shards); run its command again first"
            )
        return shards

    def batches(self) -> Iterator[tuple[int, pa.Table, Batch]]:
        """Each shard's number and ledger rows, beside its samples read from the source again.

        The ledger rows with an ``image`` are, in order, the images of the batch; no image is opened yet.
        Raises ``RunFolderError`` when the source has changed since the run.
        """
        folder = RunFolder(self.path)
        reader = kept_source(self)
        for shard in folder.shards(reader.files(), self.shards()):
            rows = ledger_part(folder, shard.number)
            yield shard.number, rows, Batch.from_rows(reader.read(shard), reader.layout)

    def vectors(self, shard: int, of: Literal["image", "text"] = "image") -> Vectors:
        """The vectors of a shard, memory-mapped: a row for each of its ledger rows, NaN where there is none.

        ``text`` gives, for each image, its best-matching text. Raises ``RunFolderError`` when the run kept none.
        """
        folder = RunFolder(self.path)
        path = folder.vectors(shard, of)
        if not exists(path):
            raise RunFolderError(
                f"{self.path} holds no {of} vectors: run its recipe with --vectors, into another --out"
            )
        with undamaged(path):
            return folder.load_vectors(shard, of)

    @cached_property
    def plan(self) -> Plan:
        """The recipe as it was planned: its scorers and rules in order."""
        return make_plan(self.recipe, self.executed["layout"])

    @property
    def duplicates(self) -> Mapping[str, Any] | None:
        """How near duplicates were searched; None for a run without such a search.

        Keys: ``method``, ``compared``, ``removed``, ``groups``, ``recall`` (of an approximate search), ``against``.
        """
        about = (self.columns.metadata or {}).get(ABOUT)
        return None if about is None else dict(json.loads(about))

    def show(self) -> None:
        """Prints the funnel, each score's percentiles with a small histogram, labels, errors, and how it was made."""
        terminal.show(Console(highlight=False), self.facts)

    def report(self, path: str | Path | None = None) -> Path:
        """Writes the report, one HTML file that needs no network, to ``path`` (``RUN/report.html``); gives its path."""
        from clipsieve.api.report import write_report

        return write_report(self, path).path

    @cached_property
    def facts(self) -> Facts:
        """All that a report tells of the run; of an unfinished one, of what is committed."""
        folder = RunFolder(self.path)
        return Facts(
            name=str(self.path),
            ledger=self.ledger,
            counts=self.counts,
            plan=self.plan,
            steps=self.steps,
            duplicates=self.duplicates,
            executed=self.executed,
            summary=self.summary,
            operators=self.operators,
            output=str(self.output) if self.output else None,
            done=len(folder.readable()),
            shards=len(folder.stored_shards()),
        )

    @property
    def output(self) -> Path | None:
        """The folder of the survivors, or their one file; None when nothing was written."""
        write = self.recipe.write
        if write is not None and write.path is not None:
            return place(write.path)
        return output_folder(self.recipe, self.path)

    @property
    def steps(self) -> list[str]:
        """The texts of all that drops images, in the order it decides: rules, then filters in Python."""
        return [*self.plan.steps, *(self.executed.get("filters") or ())]


def _counted(folder: RunFolder, shard: int) -> Counts:
    return ledger.count(folder.part_table("ledger", shard, ledger.COUNTED))


def open_source(recipe: Recipe) -> OpenedSource:
    """The reader of a recipe's source; from now on its storage options are those of this process."""
    configure(recipe.storage_options)
    read = recipe.read
    columns = readers.Columns(image=read.columns.image, text=read.columns.text, id=read.columns.id)
    return readers.open_source(
        read.path,
        format=read.format,
        layout=read.layout,
        columns=columns,
        root=read.root,
        invalid_rows=read.invalid_rows,
        fields=read.fields,
        types={name: pa.type_for_alias(kind) for name, kind in read.types.items()},
        fetch=recipe.fetch,
        **read.model_dump(include={"shard_bytes", "shard_rows"}, exclude_none=True),
    )


def kept_source(run: Run) -> Reader:
    """The reader of what ``run`` has read, with the images by URL that it or one before it has kept."""
    return kept(limited(open_source(run.recipe), run.recipe), run.fetched_in)


def kept(reader: Reader, runs: Sequence[Path]) -> Reader:
    """The reader with the images by URL that ``runs`` have kept."""
    folders = [RunFolder(run) for run in runs]
    return KeptReader(reader, folders) if reader.layout.fetch else reader


def limited(reader: Reader, recipe: Recipe) -> Reader:
    """The part of the source that ``recipe`` takes."""
    return reader if recipe.limit is None else FirstSamples(reader, recipe.limit)


def output_folder(recipe: Recipe, run_folder: Path) -> Path | None:
    """The folder in which the files of survivors are written; those of one file are parts of it."""
    if recipe.write is None:
        return None
    if recipe.write.path is None or recipe.write.single_file:
        return run_folder / "output"
    return place(recipe.write.path)
