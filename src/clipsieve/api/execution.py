"""From a recipe to a run: the passes over the source, and counts that are held against it."""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from clipsieve import encoders, writers
from clipsieve.api.earlier import check_earlier, images_before
from clipsieve.api.progress import Progress, Silent
from clipsieve.api.runs import Run, kept, limited, open_source, output_folder
from clipsieve.core import storage
from clipsieve.core.contracts import Encoder, Filter, JoiningWriter, Reader, Shard, SourceCounts
from clipsieve.core.embed import check_prompts
from clipsieve.core.ledger import Counts
from clipsieve.core.spread import Spread, in_threads
from clipsieve.core.storage import place
from clipsieve.core.timing import StageTimes
from clipsieve.engines.commit import Committer, Output, output_name
from clipsieve.engines.ledger_columns import Earlier
from clipsieve.engines.local import LocalEngine
from clipsieve.engines.prior import Prior
from clipsieve.engines.ray.cluster import Cluster, connected
from clipsieve.engines.ray.engine import RayEngine
from clipsieve.engines.ray.model import ModelInfo
from clipsieve.engines.ray.objects import check_picklable
from clipsieve.engines.select import Selector
from clipsieve.engines.usage import Usage
from clipsieve.errors import CountsError, OutputError, RecipeError
from clipsieve.plan import Plan, default_scores, make_plan
from clipsieve.recipe import OF_SPEED, Recipe, load_yaml, with_speed
from clipsieve.runfolder import OWN_FOLDERS, TEMPORARY, RunFolder, atomic

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

    Beside the path of a recipe may stand how fast and where it runs, such as ``device``, ``engine`` and ``address``.

    ``filters`` are rules of your own in Python (``clipsieve.Filter``), applied in order to what the recipe's rules
    leave; the run folder remembers their names, not what they do. The same call again resumes an interrupted run and is
    quick on a finished one. Raises ``UsageError`` before anything runs when the request is wrong, ``CountsError`` when
    the counts do not add up.
    """
    given = {key: value for key, value in (("read", read), ("keep", keep), ("write", write), ("model", model)) if value}
    given |= options
    if recipe is None:
        recipe = Recipe.build(given)
    elif (isinstance(recipe, Recipe) and given) or set(given) - set(OF_SPEED):
        raise RecipeError(f"give a recipe or its parts, not both (got a recipe and {', '.join(given)})")
    elif not isinstance(recipe, Recipe):
        recipe = Recipe.build(with_speed(load_yaml(recipe), given))
    return execute(recipe, out, progress or Silent(), filters)


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
    return execute(recipe.model_copy(update={"scores": scores, "score_all": True}), out, progress or Silent())


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
    out: str | Path,
    progress: Progress,
    filters: Sequence[Filter] = (),
    encoder: Encoder | None = None,
    known: Known | None = None,
) -> Run:
    """Runs ``recipe``, and then ``filters``, into the run folder ``out``.

    ``encoder`` is the recipe's model, where it is loaded already. Of what is ``known`` nothing is computed again.
    """
    began = time.monotonic()
    storage.configure(recipe.storage_options)  # first: a place keeps the options that it was made with
    out = place(out)
    reader = open_source(recipe)
    progress.say(reader.describe())
    plan = make_plan(recipe, reader.layout.kind)
    on_cluster = recipe.engine == "ray"
    if on_cluster and known is not None:
        raise RecipeError("what an earlier run found is taken over on this machine: leave engine: ray out")
    for warning in plan.warnings():
        progress.say(f"warning: {warning}")
    check_output(plan, out)
    _check_filters(filters)
    if on_cluster and filters:
        check_picklable(filters)
    if filters and plan.two_passes:
        raise RecipeError(
            "filters in Python need a recipe without dedup and top N %; use those on what the filters leave"
        )
    if plan.given and known is None:
        raise RecipeError(
            f"{plan.given[0]} is a score of the whole data set: run without it, keep the vectors (--vectors), then "
            f"`clipsieve add-score RUN {plan.given[0]}`, `clipsieve tune RUN` and `clipsieve apply RUN`"
        )
    with ExitStack() as held:
        of_before = _encoder_of_finished(out) if on_cluster else None
        cluster = model = None
        if of_before is None:
            if on_cluster:
                cluster = held.enter_context(connected(recipe, out, reader, progress.say))
            model = _model(plan, progress, encoder, known, cluster)
        here = versions()
        fingerprint = known.fingerprint if known else model.fingerprint if model else None
        if of_before is not None:
            (fingerprint,) = of_before
        executed: dict[str, Any] = {"layout": reader.layout.kind, "encoder": fingerprint, "versions": here}
        if known is not None:
            executed |= {"scores_of": str(known.path.absolute()), **Run(known.path).passed_on}
        if filters:
            executed["filters"] = [one.name for one in filters]
        if not storage.exists(out / "summary.json"):
            check_earlier(plan, [out], fingerprint)
        folder = held.enter_context(RunFolder.open(out, recipe.identity(), executed, progress.say))
        for name, version in folder.began_with.items():
            if (now := here.get(name)) != version:
                progress.say(f"warning: this run began with {name} {version}, now {now}: scores may differ slightly")
        source = kept(limited(reader, recipe), [out, *(Run(known.path).fetched_in if known else ())])
        spread: Spread = cluster.spread if cluster else in_threads
        if known is not None:
            found: Sequence[Shard] | None = RunFolder(known.path).shards(reader.files(), None)
        else:
            found = None if folder.has_shards() else source.shards(spread)
        shards = folder.shards(reader.files(), found)
        committer = committer_of(plan, folder, fingerprint, filters)
        if cluster is not None:
            cluster = held.enter_context(cluster.shared(source, shards, committer))
        engine = _engine(plan, source, committer, progress, model, known, cluster)
        scoring = time.monotonic()
        run_passes(plan, folder, shards, engine, committer, progress, lambda: images_before(plan, folder))
        return finish(committer, source, began, time.monotonic() - scoring, engine)


def _encoder_of_finished(out: Path) -> tuple[str | None] | None:
    """The fingerprint of the model, in a tuple, of a run whose shards are all done: nothing is left for a cluster."""
    folder = RunFolder(out)
    if not storage.exists(out / "summary.json") or len(folder.done("ledger")) < len(folder.stored_shards()):
        return None
    return (Run(out).executed.get("encoder"),)


class Engine(Protocol):
    """Who takes shards through the first pass, and what it offers to the second."""

    reader: Reader
    workers_elsewhere: Spread | None
    """Workers that share no memory with this process; None where it does everything itself."""
    times: StageTimes
    usage: Sequence[Usage]

    def run(self, shards: Iterable[Shard]) -> None:
        """Scores and commits ``shards``."""
        ...


def _model(
    plan: Plan, progress: Progress, encoder: Encoder | None, known: Known | None, cluster: Cluster | None
) -> Encoder | ModelInfo | None:
    """The plan's model, or on a cluster what is to be known of it; None where nothing needs one."""
    if cluster is not None:
        return cluster.model_info(plan.recipe, plan.prompts, progress.say) if plan.needs_encoder else None
    model = known.encoder if known else encoder
    if model is None and known is None and plan.needs_encoder:
        model = load_encoder(plan.recipe)
    if model is not None:
        check_prompts(model, plan.prompts)
    return model


def _engine(
    plan: Plan,
    source: Reader,
    committer: Committer,
    progress: Progress,
    model: Encoder | ModelInfo | None,
    known: Known | None,
    cluster: Cluster | None,
) -> Engine:
    def advance(images: int, counts: Counts | None) -> None:
        progress.advance(images, counts is not None)

    if cluster is not None:
        assert model is None or isinstance(model, ModelInfo)
        return RayEngine(cluster=cluster, plan=plan, reader=source, model=model, committer=committer, progress=advance)
    assert not isinstance(model, ModelInfo)
    return LocalEngine(
        plan=plan,
        reader=source,
        encoder=model,
        sink=committer,
        workers=plan.recipe.workers,
        batch_size=plan.recipe.batch_size,
        progress=advance,
        prior=known.prior if known else None,
    )


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
        output.clean(folder)
    return Committer(plan, folder, output, about, filters)


def finish(committer: Committer, source: Reader, began: float, scoring: float, engine: Engine | None = None) -> Run:
    """Writes the one file of the output, where it is one, and the summary of a run whose shards are all committed, and
    holds its counts against the source's."""
    folder, write = committer.folder, committer.plan.recipe.write
    if write is not None and write.single_file and committer.output is not None:
        _join(committer.output, place(write.path or ""))
    elsewhere = engine.workers_elsewhere if engine else None
    counted = source.count(elsewhere or in_threads)
    # A finished run that is run again scores nothing, and keeps the times of when it did.
    before = {} if engine is None or engine.times.images else Run(folder.path).summary
    took = {
        "seconds": round(time.monotonic() - began, 3),
        "scoring_seconds": round(scoring, 3),
        **(_timed(engine) if engine else {}),
    }
    with atomic(folder.path / "summary.json") as file:
        summary = {**(before or took), "source": {"samples": counted.samples, "images": counted.images}}
        file.write(json.dumps(summary, indent=1).encode())
    finished = Run(folder.path, elsewhere)
    reconcile(finished.counts, counted, on_cluster=isinstance(engine, RayEngine))
    return finished


def _timed(engine: Engine) -> dict[str, Any]:
    """What an engine took its time for, as plain values."""
    operators = {"operators": [asdict(one) for one in engine.usage]} if engine.usage else {}
    return {"timed_images": engine.times.images, "stages": engine.times.stages, **operators}


def _join(output: Output, path: Path) -> None:
    """Makes one file of the output's, whole or not at all."""
    assert isinstance(output.writer, JoiningWriter)
    with atomic(path) as file:
        output.writer.join(output.files(), file)


def run_passes(
    plan: Plan,
    folder: RunFolder,
    shards: Sequence[Shard],
    engine: Engine,
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
    elif first:
        progress.say(f"resuming: {len(first)} of {len(shards)} shards are scored")
    progress.start(len(shards), len(first))
    engine.run(shard for shard in shards if shard.number not in first)
    if unselected:
        Selector(committer, engine.reader, earlier(), engine.workers_elsewhere).run(shards, done, progress.compare)
    folder.drop_staged()


def reconcile(counts: Counts, source: SourceCounts, *, on_cluster: bool = False) -> None:
    """Holds a run's counts against an independent count of its source. Raises ``CountsError``."""
    if (counts.images.total, counts.samples.total) != (source.images, source.samples):
        remedy = (
            "most likely a node has another source, run folder or output at the same path: share them between all nodes"
            if on_cluster
            else "please report this"
        )
        raise CountsError(
            f"counts do not add up: the source holds {source.images:,} images in {source.samples:,} samples, "
            f"the ledger {counts.images.total:,} in {counts.samples.total:,}; {remedy}"
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
    to = place(write.path or "") if write.single_file else folder
    for within in (to.absolute(), *to.absolute().parents):
        run = within.parent
        if within.name in OWN_FOLDERS and (run == out.absolute() or storage.is_file(run / "shards.json")):
            raise OutputError(
                f"{to} is the run folder's own; choose another folder for the output"
                if run == out.absolute()
                else f"{to} is within another run, {run}; choose another folder for the output"
            )
    fresh = not storage.exists(out / "shards.json")
    if write.single_file:
        folder = place(write.path or "")
        if storage.is_folder(folder):
            raise OutputError(f"{folder} is a folder; the output is one file: give another name")
        if fresh and storage.exists(folder):
            raise OutputError(f"{folder} already exists; remove it or choose another")
    elif storage.is_file(folder):
        raise OutputError(f"{folder} is a file; the output is a folder")
    if fresh and not write.single_file and any(_in_the_way(name, write.prefix) for name in storage.names(folder)):
        raise OutputError(f"the output folder {folder} is not empty; empty it or choose another")
    if storage.is_local(folder):
        _check_writable(folder, folder.absolute().parent if write.single_file else folder.absolute())
    elif fresh:
        _check_store(folder.parent if write.single_file else folder)


def _check_writable(folder: Path, within: Path) -> None:
    """Raises ``OutputError`` when no file could be made in ``within``."""
    existing = next(parent for parent in (within, *within.parents) if parent.exists())
    if not existing.is_dir():
        raise OutputError(f"cannot write to {folder}: {existing} is a file; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: permission denied for {existing}; choose another folder")


def _check_store(folder: Path) -> None:
    """Raises ``OutputError`` when no object can be put in ``folder``: it is tried, and what was put is removed."""
    trial = folder / f"{TEMPORARY}{secrets.token_hex(4)}"
    with atomic(trial):
        pass
    storage.remove(trial)


def _in_the_way(name: str, prefix: str) -> bool:
    """Whether a file that is there already could be one of the output's; hidden ones never are."""
    return not name.startswith(".") and (not prefix or output_name(prefix).match(name) is not None)


def versions() -> dict[str, str]:
    """Versions of what decides results."""
    names = ("clipsieve", "numpy", "opencv-python-headless", "pillow", "pyarrow", "torch", "transformers", "zxing-cpp")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def installed(package: str) -> str | None:
    """The version of a package that not everybody needs; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
