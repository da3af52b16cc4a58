"""Run a recipe, score a source, open a finished run and go through its images again."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import yaml
from rich.console import Console

from clipsieve import encoders, readers, writers
from clipsieve.core import ledger
from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Encoder, Reader, Shard, SourceCounts, Vectors
from clipsieve.core.ledger import Counts
from clipsieve.engines.commit import Committer, Output
from clipsieve.engines.local import LocalEngine
from clipsieve.errors import CountsError, OutputError, RecipeError, RunFolderError
from clipsieve.plan import Plan, default_scores, make_plan
from clipsieve.readers.limit import FirstSamples
from clipsieve.readers.source import OpenedSource
from clipsieve.recipe import Recipe
from clipsieve.report import terminal
from clipsieve.runfolder import OWN_FOLDERS, RunFolder, atomic, undamaged

DEFAULT_OUT = "clipsieve-run"
"""The run folder when none is said: the same command finds it again and resumes."""


class Progress(Protocol):
    """Who wants to hear how a run goes."""

    def say(self, line: str) -> None:
        """A fact worth a line: what was inferred, a warning, what is resumed."""
        ...

    def start(self, shards: int, done: int) -> None:
        """Work begins on ``shards`` shards, of which ``done`` were committed before."""
        ...

    def advance(self, images: int, shard_done: bool) -> None:
        """``images`` more have been scored, or a shard has been committed."""
        ...


class Silent:
    """A ``Progress`` that says nothing."""

    def say(self, line: str) -> None:
        """Drops the line."""

    def start(self, shards: int, done: int) -> None:
        """Says nothing."""

    def advance(self, images: int, shard_done: bool) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class Run:
    """A finished (or resumable) run: its folder, its ledger and its counts."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Opens a run folder. Raises ``RunFolderError`` when it is none."""
        if not (Path(path) / "recipe.yaml").is_file():
            raise RunFolderError(f"{path} is not a run folder: it has no recipe.yaml")
        return cls(Path(path))

    @cached_property
    def ledger(self) -> pa.Table:
        """One row per input image, and one per sample without images; see ``clipsieve.core.ledger``."""
        return RunFolder(self.path).table()

    @cached_property
    def counts(self) -> Counts:
        """What became of the images and samples, by rule and by error."""
        return ledger.count(self.ledger)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as executed."""
        return Recipe.load(self.path / "recipe.yaml")

    @cached_property
    def executed(self) -> Mapping[str, Any]:
        """Versions, encoder and layout of the execution."""
        path = self.path / "recipe.yaml"
        with undamaged(path):
            return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["executed"])

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """Seconds, and the independent counts of the source; empty for an unfinished run."""
        path = self.path / "summary.json"
        if not path.exists():
            return {}
        with undamaged(path):
            return dict(json.loads(path.read_text(encoding="utf-8")))

    def batches(self) -> Iterator[tuple[int, pa.Table, Batch]]:
        """Each shard's number and ledger rows, beside its samples read from the source again.

        The ledger rows with an ``image`` are, in order, the images of the batch; no image is opened yet. Raises
        ``RunFolderError`` when the source has changed since the run.
        """
        folder = RunFolder(self.path)
        reader = limited(open_source(self.recipe), self.recipe)
        for shard in folder.shards(reader.files(), None):
            rows = folder.part_table("ledger", shard.number)
            yield shard.number, rows, Batch.from_rows(reader.read(shard), reader.layout)

    def vectors(self, shard: int, of: Literal["image", "text"] = "image") -> Vectors:
        """The vectors of a shard, memory-mapped: a row for each of its ledger rows, NaN where there is none.

        ``text`` gives, for each image, its best-matching text. Raises ``RunFolderError`` when the run kept none.
        """
        path = RunFolder(self.path).vectors(shard, of)
        if not path.exists():
            raise RunFolderError(
                f"{self.path} holds no {of} vectors: run its recipe with --vectors, into another --out"
            )
        with undamaged(path):
            vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            return vectors

    def rules(self) -> list[str]:
        """The texts of the rules in the order they decide."""
        plan = make_plan(self.recipe, self.executed["layout"])
        return [bound.rule.text for bound in (*plan.rules, *plan.ranks)]

    def show(self) -> None:
        """Prints the funnel, each score's percentiles with a small histogram, and the most common errors."""
        terminal.show(Console(highlight=False), self.counts, self.rules(), self.ledger)

    @property
    def output(self) -> Path | None:
        """The folder of the survivors, None when nothing was written."""
        return output_folder(self.recipe, self.path)


def run(
    recipe: Recipe | str | Path | None = None,
    *,
    read: Any = None,
    keep: Sequence[Any] | str | None = None,
    write: Any = None,
    model: str | None = None,
    out: str | Path = DEFAULT_OUT,
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Runs a recipe, given whole or as its parts (``options`` are the other keys of ``Recipe``), and returns the run.

    The same call again resumes an interrupted run and is quick on a finished one. Raises ``UsageError`` before
    anything runs when the request is wrong, ``CountsError`` when the counts do not add up.
    """
    given = {key: value for key, value in (("read", read), ("keep", keep), ("write", write), ("model", model)) if value}
    given |= options
    if recipe is None:
        recipe = Recipe.build(given)
    elif given:
        raise RecipeError(f"give a recipe or its parts, not both (got a recipe and {', '.join(given)})")
    elif not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    return execute(recipe, Path(out), progress or Silent())


def score(
    read: Any,
    *,
    model: str | None = None,
    out: str | Path = DEFAULT_OUT,
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Scores every image of a source with every score that fits its layout, and drops nothing."""
    given = {"read": read, **options} | ({"model": model} if model else {})
    recipe = Recipe.build(given)
    layout = open_source(recipe).layout
    names = default_scores(layout.kind, has_texts=layout.kind == "interleaved" or bool(layout.texts))
    scores = {**{name: {} for name in names}, **recipe.scores}
    return execute(recipe.model_copy(update={"scores": scores, "score_all": True}), Path(out), progress or Silent())


def open_source(recipe: Recipe) -> OpenedSource:
    """The reader of a recipe's source."""
    read = recipe.read
    columns = readers.Columns(image=read.columns.image, text=read.columns.text, id=read.columns.id)
    return readers.open_source(read.path, format=read.format, layout=read.layout, columns=columns, root=read.root)


def limited(reader: Reader, recipe: Recipe) -> Reader:
    """The part of the source that ``recipe`` takes."""
    return reader if recipe.limit is None else FirstSamples(reader, recipe.limit)


def output_folder(recipe: Recipe, run_folder: Path) -> Path | None:
    """Where the survivors of ``recipe`` go."""
    if recipe.write is None:
        return None
    return Path(recipe.write.path) if recipe.write.path else run_folder / "output"


def load_encoder(recipe: Recipe) -> Encoder:
    """The model of a recipe."""
    return encoders.load(recipe.model, revision=recipe.revision, device=recipe.device, precision=recipe.precision)


def execute(recipe: Recipe, out: Path, progress: Progress) -> Run:
    """Runs ``recipe`` into the run folder ``out``."""
    began = time.monotonic()
    reader = open_source(recipe)
    progress.say(reader.describe())
    plan = make_plan(recipe, reader.layout.kind)
    for warning in plan.warnings():
        progress.say(f"warning: {warning}")
    _check_output(plan, out)
    encoder = load_encoder(recipe) if plan.needs_encoder else None
    here = versions()
    executed = {
        "layout": reader.layout.kind,
        "encoder": encoder.fingerprint if encoder else None,
        "versions": here,
    }
    with RunFolder.open(out, recipe.identity(), executed) as folder:
        for name, version in folder.began_with.items():
            if (now := here.get(name)) != version:
                progress.say(f"warning: this run began with {name} {version}, now {now}: scores may differ slightly")
        source = limited(reader, recipe)
        shards = folder.shards(reader.files(), None if folder.has_shards() else source.shards())
        about = {"clipsieve": json.dumps({"version": _version(), "encoder": executed["encoder"]}, sort_keys=True)}
        committer = Committer(plan, folder, _output(plan, out), about)
        engine = LocalEngine(
            plan=plan,
            reader=source,
            encoder=encoder,
            committer=committer,
            workers=recipe.workers,
            batch_size=recipe.batch_size,
            progress=lambda images, counts: progress.advance(images, counts is not None),
        )
        scoring = time.monotonic()
        run_passes(plan, folder, shards, engine, committer, progress)
        finished = Run(out)
        scored = time.monotonic()
        counted = source.count()
        with atomic(out / "summary.json") as file:
            summary = {
                "source": {"samples": counted.samples, "images": counted.images},
                "seconds": round(time.monotonic() - began, 3),
                "scoring_seconds": round(scored - scoring, 3),
            }
            file.write(json.dumps(summary, indent=1).encode())
    reconcile(finished.counts, counted)
    return finished


def run_passes(
    plan: Plan,
    folder: RunFolder,
    shards: Sequence[Shard],
    engine: LocalEngine,
    committer: Committer,
    progress: Progress,
) -> None:
    done = folder.done("ledger")
    first = done
    if plan.ranks and len(done) < len(shards):
        # A selection needs the scores of all shards, and the survivors of those that it is yet to write.
        first = {number for number in folder.done("scores") if number in done or committer.is_staged(number)}
    if done:
        progress.say(f"resuming: {len(done)} of {len(shards)} shards are done")
    progress.start(len(shards), len(first))
    engine.run(shard for shard in shards if shard.number not in first)
    if plan.ranks and len(done) < len(shards):
        selections = committer.select(shards)
        for shard in shards:
            if shard.number not in done:
                committer.commit_selected(shard.number, selections[shard.number], engine.reader.layout)
    folder.drop_staged()


def reconcile(counts: Counts, source: SourceCounts) -> None:
    """Holds a run's counts against an independent count of its source. Raises ``CountsError``."""
    if (counts.images.total, counts.samples.total) != (source.images, source.samples):
        raise CountsError(
            f"counts do not add up: the source holds {source.images:,} images in {source.samples:,} samples, "
            f"the ledger {counts.images.total:,} in {counts.samples.total:,}; please report this"
        )


def _check_output(plan: Plan, out: Path) -> None:
    """Raises ``RecipeError`` or ``OutputError`` when the survivors could not be written."""
    write = plan.recipe.write
    folder = output_folder(plan.recipe, out)
    if write is None or folder is None:
        return
    writers.writer(write.format, plan.layout)
    if folder.absolute() in (out.absolute() / name for name in OWN_FOLDERS):
        raise OutputError(f"{folder} is the run folder's own; choose another folder for the output")
    fresh = not (out / "shards.json").exists()
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; the output is a folder")
    if fresh and folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise OutputError(f"the output folder {folder} is not empty; empty it or choose another")
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise OutputError(f"cannot write to {folder}: {existing} is a file; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: permission denied for {existing}; choose another folder")


def _output(plan: Plan, out: Path) -> Output | None:
    """Takes the output folder; only for who holds the run folder, since it removes what a dead process left."""
    write = plan.recipe.write
    folder = output_folder(plan.recipe, out)
    if write is None or folder is None:
        return None
    return Output(folder, writers.writer(write.format, plan.layout), write.samples_per_shard)


def versions() -> dict[str, str]:
    """Versions of what decides results."""
    names = ("clipsieve", "numpy", "opencv-python-headless", "pillow", "pyarrow", "torch", "transformers", "zxing-cpp")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _version() -> str:
    return metadata.version("clipsieve")
