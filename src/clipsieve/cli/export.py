"""``clipsieve export``: a finished run in the form of another tool."""

from __future__ import annotations

from typing import Annotated

import typer

from clipsieve.cli import options as o


def export(
    *,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run.")] = "clipsieve-run",
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT:PATH",
            help="datasets:folder/, fiftyone:folder/, atlas:points.parquet, datacomp:uids.npy or csv:ledger.csv.",
        ),
    ],
    verdict: Annotated[
        str | None,
        typer.Option(
            help="Which images: kept, dropped, failed or all. Default: kept for datasets and datacomp, else all."
        ),
    ] = None,
    uid: Annotated[
        str | None,
        typer.Option("--uid", metavar="COLUMN", help="datacomp: column of the uids, if not that of the sample ids."),
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Hand a run to another tool: Hugging Face datasets, FiftyOne, embedding-atlas, DataComp, or a CSV of its ledger.

    clipsieve export clipsieve-run --to datasets:curated/
    """
    import json as json_module

    from clipsieve import api
    from clipsieve.cli.terminal import Shown, out
    from clipsieve.report.words import plural

    with Shown(quiet=quiet or json, what="exporting") as progress:
        done = api.export_run(run, to, verdict=verdict, uid=uid, progress=progress)
    if json:
        out.print_json(json_module.dumps({"path": str(done.path), "rows": done.rows, "notes": done.notes}))
    elif not quiet:
        out.print("\n".join([f"{plural(done.rows, 'row')}   {done.path}", *done.notes]), markup=False)
