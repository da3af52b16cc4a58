"""Zero-shot labels: of a source, as a run, or of a finished run from its vectors, as columns beside its ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve import encoders
from clipsieve.api.added import add_columns
from clipsieve.api.execution import DEFAULT_OUT, execute
from clipsieve.api.pictures import Pictures
from clipsieve.api.progress import Progress, Silent
from clipsieve.api.runs import Run
from clipsieve.core import storage
from clipsieve.core.contracts import Encoder
from clipsieve.core.embed import BATCH_SIZE, Prompts, check_prompts, embed_prompts
from clipsieve.errors import RecipeError, RunFolderError
from clipsieve.recipe import Recipe
from clipsieve.report import sheet
from clipsieve.report.labels import by_label, names_in_folder
from clipsieve.runfolder import RunFolder, atomic
from clipsieve.scorers.label import ALL, TEMPLATES, Label

ADDED = "label"
"""The columns' folder in ``RUN/added/``."""

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""What a contact sheet is written as."""

JPEG_HEIGHT = 65_500
"""Pixels; libjpeg's own limit."""


def label(
    read: Any,
    *,
    labels: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    min_probability: float = 0.0,
    all: bool = False,
    model: str | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    device: str = "auto",
    batch_size: int = BATCH_SIZE,
    **options: Any,
) -> Run:
    """Says of every image which of ``labels`` it shows, and how probable that is; see ``Label`` for the arithmetic.

    ``read`` is a source, from which a run is made at ``out`` (``options`` are the other keys of ``Recipe``), or a
    finished run that kept its vectors, a ``Run`` or its folder. To a finished run the columns ``label``,
    ``label_probability`` and, with ``all``, ``label_probabilities`` are added, in place of those it had; no image is
    read, and only the prompts go through its model.

    Raises ``RecipeError`` when the request is wrong, ``RunFolderError`` when the run is unfinished, without vectors,
    decided by labels of its own, or of another model than ``model``.
    """
    try:
        scorer = Label(labels=labels, templates=templates, min_probability=min_probability, all=all)
    except ValueError as failure:
        raise RecipeError(f"label: {failure}") from None
    progress = progress or Silent()
    run = finished_run(read)
    if run is None:
        given = {"read": read, "device": device, "batch_size": batch_size, **options}
        recipe = Recipe.build(given | ({"model": model} if model else {}))
        asked = {
            "labels": [*scorer.labels], "templates": [*scorer.templates], "min_probability": min_probability, "all": all
        }  # fmt: skip
        recipe = recipe.model_copy(update={"scores": {**recipe.scores, "label": asked}})
        return execute(recipe, out or DEFAULT_OUT, progress)
    if out is not None or options:
        extra = ", ".join([*(["out"] if out is not None else []), *options])
        raise RecipeError(f"{run.path} is a finished run and labelled as it is; leave out {extra}")
    with RunFolder.reopen(run.path) as folder:
        shards = folder.readable()
        run.vectors(shards[0])  # or says how to get some
        _check_decided(run)
        encoder = encoder_of(run, model, device)
        check_prompts(encoder, scorer.prompts)
        prompts = embed_prompts(encoder, scorer.prompts, batch_size)
        progress.say(f"labelling the images of {run.path} by their vectors")
        add_columns(folder, ADDED, ((shard, _labelled(run, folder, shard, scorer, prompts)) for shard in shards))
    return Run(run.path)


def finished_run(read: Any) -> Run | None:
    """The run that ``read`` is or leads to; None for a source."""
    if isinstance(read, Run):
        return read
    if not isinstance(read, (str, os.PathLike)):
        return None
    folder = storage.place_or_none(read)
    found = folder is not None and all(storage.is_file(folder / name) for name in ("recipe.yaml", "shards.json"))
    return Run(folder) if folder is not None and found else None


def read_labels(path: str | Path) -> list[str]:
    """The labels in a text file, one a line; blank lines do not count. Raises ``RecipeError``."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise RecipeError(f"no labels at {path}: give the path of a text file with one a line") from None
    except OSError as failure:
        raise RecipeError(f"cannot read the labels in {path}: {failure.strerror or failure}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path} holds no labels: it is not text in UTF-8") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise RecipeError(f"{path} holds no labels: write one a line")
    return found


def draw_sheet(run: Run, path: str | Path, *, images: int = sheet.IMAGES) -> int:
    """Draws a contact sheet of a labelled run to ``path`` and gives how many images are on it.

    Images stand by label, the surest first; of more than ``images`` some of each label are taken, evenly from the
    surest to the least sure. They are read again from the source. Raises ``RecipeError`` for a name that is no
    picture's, ``RunFolderError`` when the source has changed.
    """
    format = check_sheet(path)
    ledger = run.ledger
    chosen = sheet.choose(by_label(ledger), images)
    wanted = np.array(sorted(row for block in chosen for row in block.rows), dtype=np.int64)
    pictures = {row: found.thumbnail for row, found in Pictures(run).many(wanted.tolist(), sheet.SIDE)}
    _, names = names_in_folder(ledger.take(pa.array(wanted)))
    total = sum(block.images for block in chosen)
    title = f"{total:,} labelled images" if total == len(wanted) else f"{len(wanted):,} of {total:,} labelled images,"
    if total > len(wanted):
        title += " of each label evenly from the surest to the least sure"
    drawn = sheet.draw(chosen, pictures, dict(zip(wanted.tolist(), names, strict=True)), title)
    if format == "JPEG" and drawn.height > JPEG_HEIGHT:
        raise RecipeError(f"{path}: {len(wanted):,} images are too many for one JPEG; give a .png, or fewer images")
    with atomic(Path(path)) as file:
        drawn.save(file, format)
    return len(wanted)


def check_sheet(path: str | Path) -> str:
    """The format that a contact sheet of that name is written in. Raises ``RecipeError`` for a name of no picture."""
    suffix = Path(path).suffix.lower()
    if Path(path).is_dir():
        raise RecipeError(f"{path} is a folder; give the path of a picture for the contact sheet")
    if suffix not in FORMATS:
        raise RecipeError(f"a contact sheet is a picture; give a path that ends in {', '.join(FORMATS)}, not {path}")
    return FORMATS[suffix]


def _check_decided(run: Run) -> None:
    """Raises ``RunFolderError`` when rules of the run read labels: with others, its verdicts would seem wrong."""
    plan = run.plan
    reading = [bound.rule.text for bound in (*plan.rules, *plan.ranks) if bound.rule.name in Label.columns]
    if plan.dedup and set(plan.dedup.preference) & set(Label.columns):
        reading.append(plan.dedup.by.text)
    if reading:
        raise RunFolderError(
            f"{run.path} was decided by labels of its own ({reading[0]}); label its source into another --out"
        )


def encoder_of(run: Run, model: str | None = None, device: str = "auto") -> Encoder:
    """The model that embedded the run, by its fingerprint. Raises ``RunFolderError`` for another one."""
    then = str(run.executed["encoder"])
    recipe = run.recipe
    precision = encoders.precision_of(then)
    revision = recipe.revision if model in (None, recipe.model) else None
    encoder = encoders.load(model or recipe.model, revision=revision, device=device, precision=precision)
    if encoder.fingerprint != then:
        raise RunFolderError(
            f"{run.path} was embedded by another model ({recipe.model}, {then}) than {model or recipe.model} is now "
            f"({encoder.fingerprint}); give that one with --model, or label the source into another --out"
        )
    return encoder


def _labelled(run: Run, folder: RunFolder, shard: int, scorer: Label, prompts: Prompts) -> pa.Table:
    """The columns of a shard's ledger rows: null where the image was not embedded, NaN where it cannot be."""
    ledger = folder.part_table("ledger", shard, ["image", "error"])
    vectors = run.vectors(shard)
    if len(vectors) != ledger.num_rows:
        raise RunFolderError(f"{folder.vectors(shard, 'image')} does not go with the ledger: the run folder is damaged")
    failed = pc.and_(pc.is_valid(ledger["image"]), pc.is_valid(ledger["error"])).to_numpy()
    computed = failed | ~np.isnan(vectors).any(axis=1)
    scored = scorer.of_vectors(vectors, prompts)
    # All probabilities that the run itself holds are of other labels, and are not to be seen beside these.
    own = {name: type for own in run.plan.scorers for name, type in own.columns.items() if name in ALL}
    types = {**scorer.columns, **own}
    columns = {name: pa.nulls(len(vectors), type) for name, type in types.items()} | dict(scored)
    fields = [pa.field(name, type, metadata={"unit": scorer.unit}) for name, type in types.items()]
    about = {
        "version": metadata.version("clipsieve"), "labels": scorer.labels, "templates": scorer.templates,
        "min_probability": scorer.min_probability,
    }  # fmt: skip
    return pa.table(
        [pc.if_else(pa.array(computed), columns[field.name], pa.nulls(len(computed), field.type)) for field in fields],
        schema=pa.schema(fields, metadata={"label": json.dumps(about, ensure_ascii=False)}),
    )
