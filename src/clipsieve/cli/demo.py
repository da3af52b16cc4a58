"""``clipsieve demo``: generated data with planted faults, curated with the bundled model, held against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipsieve.cli import options as o


def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo goes.")] = Path("clipsieve-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the generated data.")] = 0,
    workers: o.Workers = None,
) -> None:
    """Generate sample data, curate it with the bundled model, and compare with what was planted."""
    from rich.table import Table

    from clipsieve import api
    from clipsieve import demo as data
    from clipsieve.cli.terminal import Shown, finish, out
    from clipsieve.recipe import Recipe

    with Shown(quiet=False) as progress:
        progress.say(f"generating 600 documents and 400 caption pairs in {folder}/ (seed {seed})")
        truth = data.generate(folder, seed=seed)
        recipe = Recipe.build(
            {
                "read": str(folder / "documents.parquet"),
                "model": "demo",
                "keep": list(data.KEEP_DOCUMENTS),
                "dedup": data.DEDUP,
                "write": {"webdataset": str(folder / "curated")},
                "workers": workers,
            }
        )
        done = api.execute(recipe, folder / "run", progress)
    finish(done, as_json=False, quiet=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("planted", "must be", "rows", "right", "share"):
        table.add_column(title, justify="left" if title in ("planted", "must be") else "right")
    for outcome in data.compare(done.ledger, truth, data_set="documents"):
        table.add_row(
            outcome.fault or "nothing",
            outcome.verdict,
            f"{outcome.planted:,}",
            f"{outcome.right:,}",
            f"{outcome.share:.1%}",
        )
    out.print()
    out.print(table)
    out.print()
    out.print("The bundled model knows only these generated scenes; for photographs use openai/clip-vit-base-patch32.")
    out.print("Next:", style="bold")
    for command in (
        f"clipsieve show {folder}/run",
        f"clipsieve score {folder}/pairs.jsonl --model demo --out {folder}/scores",
        f"clipsieve run --read {folder}/pairs.jsonl --model demo --keep 'clip_score >= {data.CLIP_SCORE_THRESHOLD}' "
        f"--write webdataset:{folder}/pairs-curated --out {folder}/pairs-run",
    ):
        out.print(f"  {command}", markup=False)
