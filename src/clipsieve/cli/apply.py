"""``clipsieve apply``: other rules for a finished run, without the model."""

from __future__ import annotations

from typing import Annotated

import typer

from clipsieve.cli import options as o


def apply(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run.")],
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="RULE", help="All rules, in place of the run's; default: the run's own."),
    ] = None,
    dedup: o.Dedup = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write",
            metavar="FORMAT[:FOLDER]",
            help="Default: the run's format, in the new run folder.",
            callback=o.lasting_output,
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="RUN", help="The new run; RUN-apply by default.", callback=o.lasting)
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Compute the scores that the run's early exit left out and the rules need.")
    ] = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Write a new selection from a finished run: decide again from its scores, and read only what is kept.

    clipsieve apply run --keep 'clip_score >= 0.22' --keep 'blur >= 80' --write webdataset:selected/
    """
    from clipsieve import api
    from clipsieve.cli.terminal import Shown, finish

    with Shown(quiet=quiet or json, what="deciding") as progress:
        done = api.apply_run(run, keep, dedup=dedup, write=write, out=out, fill=fill, progress=progress)
    finish(done, as_json=json, quiet=quiet)
