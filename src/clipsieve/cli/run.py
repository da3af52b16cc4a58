"""``clipsieve run``: a recipe, from a file or from flags, to an output and a ledger."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from clipsieve.cli import options as o


def run(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe in YAML, also one of Data-Juicer's; or give its parts as flags.")
    ] = None,
    read: Annotated[list[str] | None, typer.Option("--read", metavar="PATH", help="File, folder or glob.")] = None,
    keep: Annotated[list[str] | None, typer.Option("--keep", metavar="RULE", help="'blur >= 100'; repeatable.")] = None,
    dedup: o.Dedup = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write",
            metavar="FORMAT[:FOLDER]",
            help="webdataset:curated/, parquet, jsonl, csv.",
            callback=o.lasting_output,
        ),
    ] = None,
    scores: Annotated[bool, typer.Option("--scores", help="Add the scores to the output.")] = False,
    model: o.Model = None,
    out: o.Out = "clipsieve-run",
    vectors: o.Vectors = False,
    on_error: o.OnError = None,
    check: Annotated[str | None, typer.Option(help="decode every image, or only read its header.")] = None,
    long_text: o.LongText = None,
    score_all: Annotated[bool, typer.Option("--score-all", help="Score dropped images too.")] = False,
    limit: o.Limit = None,
    format: o.Format = None,
    layout: o.Layout = None,
    image: o.Image = None,
    text: o.Text = None,
    id: o.Id = None,
    root: o.Root = None,
    report: Annotated[bool, typer.Option("--report", help="Write RUN/report.html, too.")] = False,
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
    """Run a recipe: read, score, keep, write, and record what happened to every image.

    clipsieve run recipe.yaml
    clipsieve run --read docs.parquet --keep 'clip_score >= 0.2' --write webdataset:curated/
    """
    from clipsieve import api
    from clipsieve.cli.terminal import Shown, finish
    from clipsieve.cli.terminal import out as terminal
    from clipsieve.dropin.data_juicer import recipe_values
    from clipsieve.errors import RecipeError
    from clipsieve.recipe import Recipe, with_scores, with_speed

    progress = Shown(quiet=quiet or json)
    values: dict[str, Any] = recipe_values(recipe, progress.say) if recipe else {}
    if read:
        values["read"] = o.read_values(read, format=format, layout=layout, image=image, text=text, id=id, root=root)
    elif any((format, layout, image, text, id, root)):
        raise RecipeError("--format, --layout, --image, --text, --id and --root go with --read")
    if write:
        values["write"] = write
    if scores:
        values["write"] = with_scores(values.get("write"))
    flags = {
        "keep": keep, "dedup": dedup, "model": model, "on_error": on_error, "check": check, "long_text": long_text,
        "limit": limit, "batch_size": batch_size, "workers": workers, "vectors": vectors, "score_all": score_all,
    }  # fmt: skip
    values |= {key: value for key, value in flags.items() if value}
    where = {"engine": engine, "address": address, "encoders": encoders, "encoder_gpus": encoder_gpus}
    values = with_speed(values, {key: value for key, value in where.items() if value is not None})
    values["device"] = device if device != "auto" else values.get("device", "auto")
    with progress:
        done = api.execute(Recipe.build(values), out, progress)
    written = done.report() if report else None
    finish(done, as_json=json, quiet=quiet)
    if written and not (json or quiet):
        terminal.print(f"report  {written}", markup=False)
