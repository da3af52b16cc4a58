"""``clipsieve tune``: what other rules would change in a finished run, from its ledger alone."""

from __future__ import annotations

from typing import Annotated

import typer

from clipsieve.cli import options as o


def tune(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")] = "clipsieve-run",
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="RULE", help="All rules, in place of the run's; default: the run's own."),
    ] = None,
    suggest: Annotated[
        list[str] | None,
        typer.Option("--suggest", metavar="SHARE", help="Thresholds that this share passes: 30%, clip_score=30%."),
    ] = None,
    json: o.Json = False,
) -> None:
    """See what other rules would change: the funnel before and after, what each rule drops, which images change sides.

    clipsieve tune run --keep 'clip_score >= 0.22' --keep 'blur >= 80'
    clipsieve tune run --suggest 30% --suggest blur=90%
    """
    import dataclasses
    import json as json_module

    from clipsieve.api import Run
    from clipsieve.api.tuning import Tuning
    from clipsieve.cli.terminal import out
    from clipsieve.report import tuning_tables

    tuning = Tuning(Run.open(run))
    found = tuning.suggest(suggest or [], keep)
    rules = tuning.with_suggested(found, keep)
    comparison = tuning.compare(rules)
    if json:
        about = {"keep": rules, "suggested": [dataclasses.asdict(one) for one in found]}
        out.print_json(json_module.dumps({**about, **dataclasses.asdict(comparison)}))
        return
    dedup = tuning.plan.dedup
    for piece in tuning_tables.told(comparison, found, dedup.by.text if dedup else None):
        out.print(piece)
