"""Near duplicates of a finished run: a new run from its scores and vectors, without the model."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.api.earlier import check_earlier, images_before
from clipsieve.api.execution import check_output, committer_of, finish
from clipsieve.api.progress import Progress, Silent
from clipsieve.api.runs import Run, kept, limited, open_source
from clipsieve.core import storage
from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Reader, Scorer, Shard
from clipsieve.core.ledger import whole_images
from clipsieve.core.threads import cores
from clipsieve.engines.reread import no_longer
from clipsieve.engines.select import Selector
from clipsieve.errors import RecipeError, RunFolderError
from clipsieve.plan import Plan, make_plan
from clipsieve.runfolder import Kind, RunFolder, atomic, write_table


def dedup_run(
    run: Run | str | Path,
    dedup: Any,
    *,
    write: Any = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Removes near duplicates from a finished run into a new one at ``out`` (``RUN-dedup`` when not said).

    ``dedup`` is what stands under that key in a recipe: a cosine, a method, or a mapping. The new run is the one that
    the old recipe with this ``dedup`` would have given: scores and vectors are taken over, images are read again only
    to be written or hashed. ``write`` is as in a recipe; when it is not said, a run that wrote writes the same format
    into the new run folder. Raises ``RunFolderError`` when the run is not finished, kept no vectors or its source has
    changed.
    """
    old = run if isinstance(run, Run) else Run.open(run)
    out = storage.place(f"{old.path}-dedup" if out is None else out)
    progress = progress or Silent()
    began = time.monotonic()
    recipe = old.recipe.altered(write, dedup=dedup)
    if old.executed.get("filters") and old.executed["layout"] == "interleaved":
        raise RunFolderError(f"{old.path} lost rows to filters in Python, which its source still has; dedup its output")
    if out.resolve() == old.path.resolve():
        raise RunFolderError(f"{out} is the run itself; give another --out")
    plan = make_plan(recipe, old.executed["layout"])
    check_output(plan, out)
    shards = old.shards()
    if recipe.dedup is not None and recipe.dedup.semantic:
        old.vectors(0)
    reader = kept(limited(open_source(recipe), recipe), old.fetched_in)
    source = RunFolder(old.path)
    source.shards(reader.files(), shards)
    # A run of two passes has the verdicts of its local rules among its scores, any other in its ledger.
    kind: Kind = "scores" if source.done("scores") else "ledger"
    _check_scores(old, plan)
    if not storage.exists(out / "summary.json"):
        check_earlier(plan, [out, old.path], old.executed["encoder"])
    with RunFolder.open(out, recipe.identity(), {**old.executed, **old.passed_on}, progress.say) as folder:
        folder.shards(reader.files(), shards)
        committer = committer_of(plan, folder, old.executed["encoder"])
        done, taken = folder.done("ledger"), folder.done("scores")
        progress.start(len(shards), len(taken))
        for shard in shards:
            if shard.number not in taken:
                images = _take_over(source, kind, folder, plan, reader, shard)
                progress.advance(images, True)
        if len(done) < len(shards):
            Selector(committer, reader, images_before(plan, folder)).run(shards, done, progress.compare)
        folder.drop_staged()
        return finish(committer, reader, began, time.monotonic() - began)


def _check_scores(old: Run, plan: Plan) -> None:
    """Raises ``RecipeError`` when the run lacks a score that its images' bytes or pixels alone do not give."""
    for scorer in plan.scorers:
        missing = set(scorer.columns) - set(old.columns.names)
        if missing and scorer.reads not in ("bytes", "pixels"):
            raise RecipeError(
                f"{old.path} has no {min(missing)} to prefer images by; run its recipe with this dedup from the start"
            )


def _take_over(source: RunFolder, kind: Kind, folder: RunFolder, plan: Plan, reader: Reader, shard: Shard) -> int:
    """Takes over the scores and vectors of a shard, computes the hashes that it lacks, and says how many images."""
    table = source.part_table(kind, shard.number)
    missing = [s for s in plan.scorers if any(name not in table.column_names for name in s.columns)]
    if missing:
        table = _scored(table, missing, Batch.from_rows(reader.read(shard), reader.layout))
    if plan.keeps_vectors:
        for of in ("image", "text"):
            if storage.exists(stored := source.vectors(shard.number, of)):
                _link(stored, folder.vectors(shard.number, of))
    write_table(folder.part("scores", shard.number), table)
    return int(table.num_rows - table["image"].null_count)


def _scored(table: pa.Table, scorers: Sequence[Scorer], batch: Batch) -> pa.Table:
    """The part with the columns of ``scorers`` for the images that are kept, null for the others.

    Raises ``SourceError`` when one of them can no longer be read.
    """
    kept = whole_images(table)

    def score(image: int) -> dict[str, pa.Array]:
        one = batch.one_image(image)
        found = {name: column for scorer in scorers for name, column in scorer.score(one).items()}
        if one.errors:
            raise no_longer(one.parts.images[0], one.errors[0])
        return found

    with ThreadPoolExecutor(cores()) as pool:
        found = list(pool.map(score, np.flatnonzero(kept[pc.is_valid(table["image"]).to_numpy()]).tolist()))
    places = np.full(table.num_rows, -1)
    places[kept] = np.arange(len(found))
    for scorer in scorers:
        for name, type in scorer.columns.items():
            column = pa.chunked_array([one[name] for one in found], type).take(pa.array(places, mask=places < 0))
            table = table.append_column(pa.field(name, type, metadata={"unit": scorer.unit}), column)
    return table


def _link(stored: Path, path: Path) -> None:
    """The file under a second name, or copied where the disk or store has no second names for it."""
    if not (storage.is_local(stored) and storage.is_local(path)):
        storage.copy(stored, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        os.link(stored, path)
    except OSError:
        with open(stored, "rb") as source, atomic(path) as copy:
            shutil.copyfileobj(source, copy)
