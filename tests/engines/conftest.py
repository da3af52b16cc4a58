"""One call that runs rules over a table, as the engine tests need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count as count_from
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clipsieve import api, writers
from clipsieve.api import execution
from clipsieve.api.added import whole_ledger
from clipsieve.core.contracts import Filter
from clipsieve.core.layout import Layout
from clipsieve.core.ledger import count
from clipsieve.core.spread import Spread
from clipsieve.engines.commit import Committer, Output
from clipsieve.engines.local import LocalEngine
from clipsieve.plan import make_plan
from clipsieve.recipe import Recipe
from clipsieve.runfolder import RunFolder
from tests.fakes import ColourEncoder, TableReader

Curate = Callable[..., pa.Table]


def curate_table(
    table: pa.Table,
    layout: Layout,
    *keep: Any,
    out: Path,
    rows_a_shard: int = 8,
    errors: dict[int, str] | None = None,
    encoder: ColourEncoder | None = None,
    filters: Sequence[Filter] = (),
    spread: Spread | None = None,
    **options: Any,
) -> pa.Table:
    """Runs a recipe over a table in memory with the colour encoder, and gives the ledger."""
    recipe = Recipe.build({"read": "memory", "model": "colours", "keep": list(keep), **options})
    plan = make_plan(recipe, layout.kind)
    reader = TableReader(table, layout, rows_a_shard, errors)
    output = None
    if recipe.write:
        writer = writers.writer(recipe.write.format, layout.kind)
        folder = Path(recipe.write.path) if recipe.write.path else out / "output"
        output = Output(folder, writer, samples_per_shard=recipe.write.samples_per_shard, embed=recipe.write.embed)
    model = (encoder or ColourEncoder()) if plan.needs_encoder else None
    with RunFolder.open(out, recipe.identity(), {"encoder": model and model.fingerprint}) as run:
        shards = run.shards(reader.files(), reader.shards())
        committer = Committer(plan, run, output, {}, filters)
        engine = LocalEngine(
            plan=plan, reader=reader, encoder=model, sink=committer,
            workers=recipe.workers, batch_size=recipe.batch_size, progress=lambda images, counts: None,
        )  # fmt: skip
        engine.workers_elsewhere = spread
        execution.run_passes(plan, run, shards, engine, committer, api.Silent())
        ledger = whole_ledger(run)
    execution.reconcile(count(ledger), reader.count())
    return ledger


@pytest.fixture
def curate(tmp_path: Path) -> Curate:
    """``curate_table`` with a run folder of its own for each call."""
    numbers = count_from(0)

    def run(table: pa.Table, layout: Layout, *keep: Any, out: Path | None = None, **options: Any) -> pa.Table:
        return curate_table(table, layout, *keep, out=out or tmp_path / f"run{next(numbers)}", **options)

    return run
