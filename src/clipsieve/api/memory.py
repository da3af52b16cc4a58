"""Curates rows that are in memory: the same rules, scores and engine as a run, without a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.api.execution import load_encoder, reconcile
from clipsieve.api.progress import Progress, Silent
from clipsieve.core.contracts import Encoder, Vectors
from clipsieve.core.embed import check_prompts
from clipsieve.core.ledger import Counts, count
from clipsieve.engines.collect import Collector
from clipsieve.engines.local import LocalEngine
from clipsieve.errors import RecipeError
from clipsieve.plan import Plan, make_plan
from clipsieve.readers import Columns
from clipsieve.readers.memory import NAME, Memory
from clipsieve.recipe import Recipe

_OF_RUNS = ("read", "write", "limit", "dedup")
"""Keys of a recipe that need files."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Curated:
    """What became of rows in memory."""

    rows: pa.Table
    """What stays, in the columns and the order of the input; documents by position, which is numbered anew."""

    ledger: pa.Table
    """One row an image, and one a sample without images, as in a run: see ``clipsieve.core.ledger``.

    ``row`` is the number of the input row."""

    reasons: Sequence[str | None]
    """For each input row why it goes, None where it stays; in a list of images one may go and its row stay."""

    vectors: Vectors | None = None
    """``(rows of the ledger, dim)``, NaN where there is none; None unless ``vectors=True`` was asked for."""

    @cached_property
    def counts(self) -> Counts:
        """What became of the images and samples, by rule and by error."""
        return count(self.ledger)

    @cached_property
    def kept(self) -> npt.NDArray[np.int64]:
        """The numbers of the input rows that stay, ``(kept rows,)``."""
        return np.array([row for row, reason in enumerate(self.reasons) if reason is None], dtype=np.int64)


def curate(
    rows: pa.Table | Mapping[str, Sequence[Any]],
    *,
    keep: Sequence[Any] | str | None = None,
    layout: str | None = None,
    columns: Mapping[str, Any] | None = None,
    root: str | None = None,
    invalid_rows: str = "keep",
    encoder: Encoder | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Curated:
    """Scores ``rows`` and keeps what the rules allow, in memory.

    ``rows`` is an Arrow table, a pandas DataFrame, or a mapping of column names to values. In the latter two an image
    may be a path, bytes, a ``{bytes, path}`` mapping, a Pillow image, an ``(h, w, 3)`` uint8 array, or in layout
    ``lists`` a list of those.
    ``columns``, ``layout``, ``root`` and ``invalid_rows`` are those of a recipe's ``read``; ``options`` are its other
    keys, such as ``scores``, ``model``, ``on_error`` or ``vectors``. ``encoder`` is a loaded model in place of
    ``model``. Paths are relative to the working directory, or to ``root``.

    Raises ``UsageError`` (a ``ValueError``) before anything runs when the request is wrong, and for what needs a run:
    near duplicates (``clipsieve.dedup`` finds them among ``vectors``), rules on the whole data set, and writing.
    """
    taken = [name for name in _OF_RUNS if options.get(name) is not None]
    if taken:
        raise RecipeError(f"{', '.join(taken)}: not for rows in memory; write them to a file and use clipsieve.run")
    if isinstance(encoder, str):
        raise RecipeError(f"encoder is a loaded model; give a name as model={encoder!r}")
    read = {
        "path": NAME,
        "layout": layout,
        "columns": {} if columns is None else columns,
        "root": root,
        "invalid_rows": invalid_rows,
    }
    recipe = Recipe.build({"read": read, "keep": keep, **options})
    if recipe.engine == "ray":
        raise RecipeError("rows in memory are curated on this machine: leave engine: ray out, or use clipsieve.run")
    if recipe.fetch is not None and recipe.fetch.keep:
        raise RecipeError("fetch.keep: rows in memory have no run folder to keep images in; leave it out")
    said = recipe.read.columns
    reader = Memory(
        rows,
        columns=Columns(image=said.image, text=said.text, id=said.id),
        layout=recipe.read.layout,
        root=root,
        invalid_rows=recipe.read.invalid_rows,
        fetch=recipe.fetch,
    )
    plan = make_plan(recipe, reader.layout.kind)
    if plan.ranks:
        raise RecipeError(f"rule {plan.ranks[0].rule.text!r} needs a whole data set; use clipsieve.run")
    curated = _execute(plan, reader, encoder, progress or Silent())
    reconcile(curated.counts, reader.count())
    return curated


def _execute(plan: Plan, reader: Memory, encoder: Encoder | None, progress: Progress) -> Curated:
    model = (encoder or load_encoder(plan.recipe)) if plan.needs_encoder else None
    if model is not None:
        check_prompts(model, plan.prompts)
    collector = Collector(plan, reader.order)
    shards = reader.shards()
    engine = LocalEngine(
        plan=plan,
        reader=reader,
        encoder=model,
        sink=collector,
        workers=plan.recipe.workers,
        batch_size=plan.recipe.batch_size,
        progress=lambda images, counts: progress.advance(images, counts is not None),
    )
    progress.start(len(shards), 0)
    engine.run(shards)
    return Curated(
        rows=pa.concat_tables(collector.rows),
        ledger=pa.concat_tables(collector.ledgers),
        reasons=collector.reasons,
        vectors=collector.all_vectors() if plan.keeps_vectors else None,
    )
