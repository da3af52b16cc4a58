"""From a recipe to a run: the passes over the source, and counts that are held against it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from clipsieve import encoders, writers
from clipsieve.api.earlier import check_earlier, images_before
from clipsieve.api.progress import Progress, Silent
from clipsieve.api.runs import Run, limited, open_source, output_folder
from clipsieve.core.contracts import Encoder, Filter, JoiningWriter, Reader, Shard, SourceCounts
from clipsieve.core.embed import check_prompts
from clipsieve.core.ledger import Counts
from clipsieve.core.timing import StageTimes
from clipsieve.engines.commit import Committer, Output, output_name
from clipsieve.engines.duplicates import Earlier
from clipsieve.engines.local import LocalEngine
from clipsieve.engines.prior import Prior
from clipsieve.engines.select import Selector
from clipsieve.errors import CountsError, OutputError, RecipeError
from clipsieve.plan import Plan, default_scores, make_plan
from clipsieve.recipe import Recipe
from clipsieve.runfolder import OWN_FOLDERS, RunFolder, atomic

DEFAULT_OUT = "clipsieve-run"
"""The run folder when none is said: the same command finds it again and resumes."""


def run(
    recipe: Recipe | str | Path | None = None,
    *,
    read: Any = None,
    keep: Sequence[Any] | str | None = None,
    write: Any = None,
    model: str | None = None,
    out: str | Path = DEFAULT_OUT,
    filters: Sequence[Filter] = (),
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Runs a recipe, given whole or as its parts (``options`` are the other keys of ``Recipe``), and returns the run.

    ``filters`` are rules of your own in Python (``clipsieve.Filter``), applied in order to what the recipe's rules
    leave; the run folder remembers their names, not what they do. The same call again resumes an interrupted run and is
    quick on a finished one. Raises ``UsageError`` before anything runs when the request is wrong, ``CountsError`` when
    the counts do not add up.
    """
    given = {key: value for key, value in (("read", read), ("keep", keep), ("write", write), ("model", model)) if value}
    given |= options
    if recipe is None:
        recipe = Recipe.build(given)
    elif given:
        raise RecipeError(f"give a recipe or its parts, not both (got a recipe and {', '.join(given)})")
    elif not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    return execute(recipe, Path(out), progress or Silent(), filters)


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


def load_encoder(recipe: Recipe) -> Encoder:
    """The model of a recipe."""
    return encoders.load(recipe.model, revision=recipe.revision, device=recipe.device, precision=recipe.precision)


@dataclass(frozen=True, kw_only=True)
class Known:
    """An earlier run over the same source, whose scores are taken over: ``prior`` gives what it found of a shard.

    ``encoder`` is the model for what it left out, None where nothing that needs one was; ``fingerprint`` is that of
    its own.
    """

    path: Path
    prior: Callable[[int], Prior]
    encoder: Encoder | None
    fingerprint: str | None


def execute(
    recipe: Recipe,
    out: Path,
    progress: Progress,
    filters: Sequence[Filter] = (),
    encoder: Encoder | None = None,
    known: Known | None = None,
) -> Run:
    """Runs ``recipe``, and then ``filters``, into the run folder ``out``.

    ``encoder`` is the recipe's model, where it is loaded already. Of what is ``known`` nothing is computed again.
    """
    began = time.monotonic()
    reader = open_source(recipe)
    progress.say(reader.describe())
    plan = make_plan(recipe, reader.layout.kind)
    for warning in plan.warnings():
        progress.say(f"warning: {warning}")
    check_output(plan, out)
    _check_filters(filters)
    if filters and plan.two_passes:
        raise RecipeError(
            "filters in Python need a recipe without dedup and top N %; use those on what the filters leave"
        )
    if plan.given and known is None:
        raise RecipeError(
            f"{plan.given[0]} is a score of the whole data set: run without it, keep the vectors (--vectors), then "
            f"`clipsieve add-score RUN {plan.given[0]}`, `clipsieve tune RUN` and `clipsieve apply RUN`"
        )
    model = known.encoder if known else encoder
    if model is None and known is None and plan.needs_encoder:
        model = load_encoder(recipe)
    if model is not None:
        check_prompts(model, plan.prompts)
    here = versions()
    fingerprint = known.fingerprint if known else model.fingerprint if model else None
    executed: dict[str, Any] = {"layout": reader.layout.kind, "encoder": fingerprint, "versions": here}
    if known is not None:
        executed["scores_of"] = str(known.path.absolute())
    if filters:
        executed["filters"] = [one.name for one in filters]
    if not (out / "summary.json").exists():
        check_earlier(plan, [out], fingerprint)
    with RunFolder.open(out, recipe.identity(), executed) as folder:
        for name, version in folder.began_with.items():
            if (now := here.get(name)) != version:
                progress.say(f"warning: this run began with {name} {version}, now {now}: scores may differ slightly")
        source = limited(reader, recipe)
        if known is not None:
            found: Sequence[Shard] | None = RunFolder(known.path).shards(reader.files(), None)
        else:
            found = None if folder.has_shards() else source.shards()
        shards = folder.shards(reader.files(), found)
        committer = committer_of(plan, folder, fingerprint, filters)
        engine = LocalEngine(
            plan=plan,
            reader=source,
            encoder=model,
            sink=committer,
            workers=recipe.workers,
            batch_size=recipe.batch_size,
            progress=lambda images, counts: progress.advance(images, counts is not None),
            prior=known.prior if known else None,
        )
        scoring = time.monotonic()
        run_passes(plan, folder, shards, engine, committer, progress, lambda: images_before(plan, folder))
        return finish(committer, source, began, time.monotonic() - scoring, engine.times)


def _check_filters(filters: Sequence[Filter]) -> None:
    """Raises ``RecipeError`` for what is no list of filters."""
    if not isinstance(filters, (list, tuple)):
        raise RecipeError(f"filters is a list of filters, not {type(filters).__name__}")
    for one in filters:
        name = getattr(one, "name", None)
        if not (callable(one) and isinstance(name, str) and name):
            raise RecipeError(f"filter {one!r} needs a name and a call with a batch; see clipsieve.Filter")


def committer_of(plan: Plan, folder: RunFolder, encoder: str | None, filters: Sequence[Filter] = ()) -> Committer:
    """Who commits the shards of ``plan``; it takes the output folder, so only for who holds the run folder."""
    about = {"clipsieve": json.dumps({"version": metadata.version("clipsieve"), "encoder": encoder}, sort_keys=True)}
    write = plan.recipe.write
    to = output_folder(plan.recipe, folder.path)
    output = None
    if write is not None and to is not None:
        output = Output(
            to,
            writers.writer(write.format, plan.layout),
            samples_per_shard=write.samples_per_shard,
            prefix=write.prefix,
            embed=write.embed,
        )
        output.clean()
    return Committer(plan, folder, output, about, filters)


def finish(committer: Committer, source: Reader, began: float, scoring: float, times: StageTimes | None = None) -> Run:
    """Writes the one file of the output, where it is one, and the summary of a run whose shards are all committed, and
    holds its counts against the source's."""
    folder, write = committer.folder, committer.plan.recipe.write
    if write is not None and write.single_file and committer.output is not None:
        _join(committer.output, Path(write.path or ""))
    counted = source.count()
    with atomic(folder.path / "summary.json") as file:
        summary = {
            "source": {"samples": counted.samples, "images": counted.images},
            "seconds": round(time.monotonic() - began, 3),
            "scoring_seconds": round(scoring, 3),
            **({"timed_images": times.images, "stages": times.stages} if times else {}),
        }
        file.write(json.dumps(summary, indent=1).encode())
    finished = Run(folder.path)
    reconcile(finished.counts, counted)
    return finished


def _join(output: Output, path: Path) -> None:
    """Makes one file of the output's, whole or not at all."""
    assert isinstance(output.writer, JoiningWriter)
    with atomic(path) as file:
        output.writer.join(output.files(), file)


def run_passes(
    plan: Plan,
    folder: RunFolder,
    shards: Sequence[Shard],
    engine: LocalEngine,
    committer: Committer,
    progress: Progress,
    earlier: Callable[[], Earlier | None] = lambda: None,
) -> None:
    """Takes every shard that is not done through the one or two passes of ``plan``.

    ``earlier`` gives the images of the data set that dedup compares with as well, when the second pass begins.
    """
    done = folder.done("ledger")
    unselected = plan.two_passes and len(done) < len(shards)
    first = folder.done("scores") if unselected else done
    if done:
        progress.say(f"resuming: {len(done)} of {len(shards)} shards are done")
    progress.start(len(shards), len(first))
    engine.run(shard for shard in shards if shard.number not in first)
    if unselected:
        Selector(committer, engine.reader, earlier()).run(shards, done, progress.compare)
    folder.drop_staged()


def reconcile(counts: Counts, source: SourceCounts) -> None:
    """Holds a run's counts against an independent count of its source. Raises ``CountsError``."""
    if (counts.images.total, counts.samples.total) != (source.images, source.samples):
        raise CountsError(
            f"counts do not add up: the source holds {source.images:,} images in {source.samples:,} samples, "
            f"the ledger {counts.images.total:,} in {counts.samples.total:,}; please report this"
        )


def check_output(plan: Plan, out: Path) -> None:
    """Raises ``RecipeError`` or ``OutputError`` when the survivors could not be written."""
    write = plan.recipe.write
    folder = output_folder(plan.recipe, out)
    if write is None or folder is None:
        return
    writers.writer(write.format, plan.layout)
    if write.embed and plan.layout != "interleaved":
        raise RecipeError(f"write.embed is for documents; {plan.layout} samples keep their images with webdataset")
    if folder.absolute() in (out.absolute() / name for name in OWN_FOLDERS):
        raise OutputError(f"{folder} is the run folder's own; choose another folder for the output")
    fresh = not (out / "shards.json").exists()
    if write.single_file:
        folder = Path(write.path or "")
        if folder.is_dir():
            raise OutputError(f"{folder} is a folder; the output is one file: give another name")
        if fresh and folder.exists():
            raise OutputError(f"{folder} is there already; remove it or choose another")
    elif folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; the output is a folder")
    if fresh and folder.is_dir() and any(_in_the_way(path.name, write.prefix) for path in folder.iterdir()):
        raise OutputError(f"the output folder {folder} is not empty; empty it or choose another")
    place = folder.absolute().parent if write.single_file else folder.absolute()
    existing = next(parent for parent in (place, *place.parents) if parent.exists())
    if not existing.is_dir():
        raise OutputError(f"cannot write to {folder}: {existing} is a file; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: permission denied for {existing}; choose another folder")


def _in_the_way(name: str, prefix: str) -> bool:
    """Whether a file that is there already could be one of the output's; hidden ones never are."""
    return not name.startswith(".") and (not prefix or output_name(prefix).match(name) is not None)


def versions() -> dict[str, str]:
    """Versions of what decides results."""
    names = ("clipsieve", "numpy", "opencv-python-headless", "pillow", "pyarrow", "torch", "transformers", "zxing-cpp")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
