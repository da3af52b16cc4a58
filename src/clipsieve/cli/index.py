"""``clipsieve index``: the kept images of a run into an index that can be searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clipsieve.cli import options as o

if TYPE_CHECKING:
    from clipsieve.api import Indexed


def index(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run with --vectors.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="INDEX",
            help="A path (LanceDB), clickhouse://user:password@host:8123/database.table, or chdb:///path.",
        ),
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what the index has of this run's source and RUN does not keep.")
    ] = False,
    approximate: Annotated[
        bool | None,
        typer.Option(
            "--approximate/--exact", help="Exact or approximate search; default: by size.", show_default=False
        ),
    ] = None,
    workers: o.Workers = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Index a run: its kept images with captions, thumbnails, scores and vectors. Again: only what has changed.

    clipsieve index clipsieve-run --to images.index
    """
    import json as json_module
    from dataclasses import asdict

    from clipsieve import api
    from clipsieve.cli.terminal import Shown, out

    with Shown(quiet=quiet or json, what="indexing") as progress:
        done = api.index_run(run, to, prune=prune, approximate=approximate, workers=workers, progress=progress)
    if json:
        out.print_json(json_module.dumps(asdict(done)))
    elif not quiet:
        out.print(summary(done), markup=False)


def summary(done: Indexed) -> str:
    """What indexing did, in a few lines."""
    parts = [f"{getattr(done, name):,} {name}" for name in ("added", "updated", "unchanged")]
    parts += [f"{done.repeated:,} repeated"] if done.repeated else []
    lines = [f"{done.images:,} images = {' + '.join(parts)}; {done.rows:,} rows in the index"]
    if done.removed:
        lines.append(f"{done.removed:,} rows of images that are no longer kept were removed")
    if done.without_thumbnail:
        lines.append(f"{done.without_thumbnail:,} images cannot be read any more: they are indexed without a thumbnail")
    if done.without_vector:
        lines.append(f"{done.without_vector:,} kept images have no vector and are not indexed")
    if near := done.approximate:
        lines.append(
            f"approximate index over {near.rows:,} rows: recall@10 {near.recall:.3f} against exact search "
            f"({near.queries} stored vectors)"
        )
    return "\n".join(lines)
