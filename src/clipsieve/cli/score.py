"""``clipsieve score``: every score of every image into a ledger, and nothing dropped."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from clipsieve.cli import options as o


def score(
    read: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders or globs.")],
    model: o.Model = None,
    out: o.Out = "clipsieve-run",
    vectors: o.Vectors = False,
    on_error: o.OnError = None,
    long_text: o.LongText = None,
    limit: o.Limit = None,
    format: o.Format = None,
    layout: o.Layout = None,
    image: o.Image = None,
    text: o.Text = None,
    id: o.Id = None,
    root: o.Root = None,
    device: o.Device = "auto",
    batch_size: o.BatchSize = None,
    workers: o.Workers = None,
    engine: o.Engine = None,
    address: o.Address = None,
    encoders: o.Encoders = None,
    encoder_gpus: o.EncoderGpus = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Score a source without any rule: see the distributions before choosing thresholds."""
    from clipsieve import api
    from clipsieve.cli.terminal import Shown, finish
    from clipsieve.cli.terminal import out as terminal
    from clipsieve.report.terminal import score_table

    source = o.read_values(read, format=format, layout=layout, image=image, text=text, id=id, root=root)
    flags: dict[str, Any] = {
        "on_error": on_error, "long_text": long_text, "limit": limit, "batch_size": batch_size, "workers": workers,
        "vectors": vectors, "device": device,
    }  # fmt: skip
    where: dict[str, Any] = {"engine": engine, "address": address, "encoders": encoders, "encoder_gpus": encoder_gpus}
    said = {key: value for key, value in flags.items() if value}
    said |= {key: value for key, value in where.items() if value is not None}
    with Shown(quiet=quiet or json) as progress:
        done = api.score(source, model=model, out=out, progress=progress, **said)
    finish(done, as_json=json, quiet=quiet)
    if not quiet and not json:
        terminal.print()
        terminal.print(score_table(done.ledger))
