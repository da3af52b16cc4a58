"""``clipsieve dedup``: near duplicates out of a finished run, from its scores and vectors."""

from __future__ import annotations

from typing import Annotated

import typer

from clipsieve.cli import options as o


def dedup(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run, with --vectors for cosines.")],
    threshold: Annotated[
        float | None, typer.Option(help="Lowest cosine of near duplicates (0.9), or most bits for perceptual (6).")
    ] = None,
    method: Annotated[str | None, typer.Option(help="auto, exact, perceptual, semantic or approximate.")] = None,
    keep: Annotated[str | None, typer.Option(help="Which stays: first, largest, or the highest of a score.")] = None,
    links: Annotated[
        str | None, typer.Option(help="any: drop all that an earlier image is near to; leader; group.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="What goes: the image, or its sample.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="Also drop what this earlier run (or index) has.")
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write",
            metavar="FORMAT[:FOLDER]",
            help="Where to write what stays; default: as RUN did.",
            callback=o.lasting_output,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="NEW", help="The new run; default: RUN-dedup.", callback=o.lasting),
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Remove near duplicates from a finished run, into a new run, without the model.

    clipsieve dedup clipsieve-run --threshold 0.95 --out deduplicated
    """
    from clipsieve import api
    from clipsieve.cli.terminal import Shown, finish

    given = {
        "threshold": threshold, "method": method, "keep": keep, "links": links, "unit": unit, "against": against,
    }  # fmt: skip
    values = {key: value for key, value in given.items() if value is not None}
    with Shown(quiet=quiet or json, what="taking over") as progress:
        done = api.dedup_run(run, values, write=write, out=out, progress=progress)
    finish(done, as_json=json, quiet=quiet)
