"""``clipsieve plan``: what a recipe would do, in which order, and about how long it would take."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from clipsieve.cli import options as o

SAMPLE = 100
"""Samples that are run for the estimate."""


def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML, also one of Data-Juicer's.")],
    estimate: Annotated[bool, typer.Option(help="Run a small sample to estimate time and output.")] = True,
    device: o.Device = "auto",
    workers: o.Workers = None,
) -> None:
    """Check a recipe and its source, print the stages in order, and estimate from a timed sample."""
    from rich.table import Table

    from clipsieve import api
    from clipsieve.cli.terminal import err, out
    from clipsieve.dropin.data_juicer import recipe_values
    from clipsieve.plan import make_plan, stages
    from clipsieve.recipe import Recipe

    checked = Recipe.build(recipe_values(recipe, lambda line: err.print(line, markup=False)))
    source = api.open_source(checked)
    planned = make_plan(checked, source.layout.kind)
    out.print(source.describe(), markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("stage", "reads", "rules that decide as soon as it has run"):
        table.add_column(title)
    for stage in stages(planned):
        table.add_row(stage.name, stage.reads, "\n".join(stage.rules))
    out.print(table)
    for warning in planned.warnings():
        err.print(f"warning: {warning}", markup=False, style="yellow")
    if not estimate:
        return
    with tempfile.TemporaryDirectory(prefix="clipsieve-plan-") as folder:
        sampled = checked.model_copy(
            update={
                "limit": min(SAMPLE, checked.limit or SAMPLE), "device": device, "workers": workers, "engine": "local",
                "dedup": None, "write": checked.write and checked.write.model_copy(update={"path": None}),
            }
        )  # fmt: skip
        done = api.execute(sampled, Path(folder) / "run", api.Silent())
        written = sum(
            path.stat().st_size for path in (done.output or Path(folder) / "none").rglob("*") if path.is_file()
        )
        whole = source.count()
        samples = min(whole.samples, checked.limit or whole.samples)
        scale = samples / max(done.counts.samples.total, 1)
        seconds = done.summary["scoring_seconds"] * scale
    on_this_machine = " on this machine alone" if checked.engine != "local" else ""
    out.print(
        f"source   {whole.samples:,} samples, {whole.images:,} images\n"
        f"estimate from the first {done.counts.samples.total:,} samples "
        f"({done.counts.images.total:,} images, {done.summary['scoring_seconds']:.1f} s): "
        f"about {_duration(seconds)}{on_this_machine}, {done.counts.images.kept * scale:,.0f} images kept, "
        f"{written * scale / 2**20:,.0f} MiB written" + (", before near duplicates" if planned.dedup else ""),
        markup=False,
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
