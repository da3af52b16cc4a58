"""``clipsieve add-score``: a score of the whole data set, added to a finished run from its vectors."""

from __future__ import annotations

from typing import Annotated

import typer

from clipsieve.cli import options as o


def add_score(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run with --vectors.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="neg_clip_loss or nearest_similarity.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An option of the score, such as tau=0.02; repeatable."),
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Add a score that needs the whole data set at once to a finished run, without the model or an image.

    clipsieve add-score clipsieve-run neg_clip_loss --option seed=1
    """
    import json as json_module

    from clipsieve import api
    from clipsieve.api.dataset_scores import read_options
    from clipsieve.cli.terminal import Shown
    from clipsieve.cli.terminal import out as terminal
    from clipsieve.core.ledger import BASE_SCHEMA
    from clipsieve.report.numbers import distributions
    from clipsieve.report.terminal import score_table

    options = read_options(name, option or ())
    with Shown(quiet=quiet or json) as progress:
        done = api.add_score(run, name, progress=progress, **options)
    ledger = done.ledger.select([*BASE_SCHEMA.names, name])
    place = done.path / "added" / name
    if json:
        (found,) = distributions(ledger)
        about = {
            "run": str(done.path), "score": name, "added": str(place), "values": found.values,
            "missing": found.missing, "not_computed": found.skipped, "percentiles": dict(found.percentiles),
        }  # fmt: skip
        terminal.print_json(json_module.dumps(about))
    elif not quiet:
        terminal.print(score_table(ledger))
        terminal.print()
        terminal.print(f"added   {place}   (clipsieve show {done.path})", markup=False)
