"""``clipsieve label``: which of some labels each image shows, of a source or of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clipsieve.cli import options as o


def label(
    read: Annotated[list[str], typer.Argument(metavar="READ...", help="Files, folders or globs; or a finished run.")],
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="A,B,...", help="The labels, separated by commas.")
    ] = None,
    labels_file: Annotated[Path | None, typer.Option("--labels-file", help="A file of labels, one per line.")] = None,
    template: Annotated[
        list[str] | None,
        typer.Option("--template", help="Default: 'a photo of a {}'; repeatable, vectors are averaged."),
    ] = None,
    min_probability: Annotated[
        float, typer.Option("--min-probability", metavar="P", help="Below it an image is 'none of these'.")
    ] = 0.0,
    all: Annotated[bool, typer.Option("--all", help="Keep the probabilities of all labels.")] = False,
    sheet: Annotated[Path | None, typer.Option("--sheet", metavar="PNG", help="Draw a contact sheet.")] = None,
    sheet_size: Annotated[
        int | None, typer.Option("--sheet-size", min=1, help="Images on the sheet; default: 60.")
    ] = None,
    model: o.Model = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="RUN", help="Run folder, for a source.", callback=o.lasting)
    ] = None,
    vectors: o.Vectors = False,
    on_error: o.OnError = None,
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
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Find the best label for each image. A finished run with vectors is labelled without reading any image.

    clipsieve label photos/ --labels "cat,dog" --vectors --out run
    clipsieve label run --labels-file animals.txt --sheet labels.png
    """
    import json as json_module

    from clipsieve import api
    from clipsieve.api.labels import ADDED, check_sheet, finished_run, read_labels
    from clipsieve.cli.terminal import Shown, result
    from clipsieve.cli.terminal import out as terminal
    from clipsieve.errors import RecipeError
    from clipsieve.report.labels import label_counts, label_report

    named = [name.strip() for name in (labels or "").split(",") if name.strip()]
    if labels_file:
        named += read_labels(labels_file)
    if not named:
        raise RecipeError('say the labels: --labels "cat,dog", or --labels-file with a file of one a line')
    if sheet_size and not sheet:
        raise RecipeError("--sheet-size goes with --sheet")
    if sheet:
        check_sheet(sheet)
    source = {"format": format, "layout": layout, "image": image, "text": text, "id": id, "root": root}
    execution = {"out": out, "vectors": vectors, "on_error": on_error, "limit": limit, "workers": workers}
    flags: dict[str, Any] = {**execution, "templates": template, "batch_size": batch_size}
    given = {key: value for key, value in flags.items() if value}
    run = finished_run(read[0]) if len(read) == 1 else None
    if run and (extra := [f"--{key.replace('_', '-')}" for key, value in {**source, **execution}.items() if value]):
        raise RecipeError(f"{run.path} is a finished run and labelled as it is; leave out {', '.join(extra)}")
    what: Any = run or o.read_values(read, **source)  # type: ignore[arg-type]
    with Shown(quiet=quiet or json) as progress:
        done = api.label(
            what, labels=named, min_probability=min_probability, all=all, model=model, device=device,
            progress=progress, **given,
        )  # fmt: skip
        drawn = api.draw_sheet(done, sheet, **({"images": sheet_size} if sheet_size else {})) if sheet else 0
    if json:
        counts = label_counts(done.ledger)
        unlabelled = done.counts.images.total - sum(counts.values())
        about = {"labels": counts, "unlabelled": unlabelled, "sheet": str(sheet) if sheet else None}
        terminal.print_json(json_module.dumps({**result(done), **about}))
    elif not quiet:
        terminal.print(label_report(done.ledger, named, terminal.width if terminal.is_terminal else None))
        terminal.print()
        if sheet:
            terminal.print(f"sheet   {sheet}   ({drawn:,} images)", markup=False)
        place = done.path / "added" / ADDED if run else done.path / "ledger"
        terminal.print(f"labels  {place}   (clipsieve show {done.path})", markup=False)
