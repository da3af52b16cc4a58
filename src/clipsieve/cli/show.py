"""``clipsieve show``: a run in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from clipsieve.cli import options as o


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")] = "clipsieve-run",
    json: o.Json = False,
) -> None:
    """Show a run: the funnel, percentiles and a histogram of each score, labels, errors, and how it was made."""
    import json as json_module

    from clipsieve.api import Run
    from clipsieve.cli import terminal
    from clipsieve.report.plain import plain_values

    opened = Run.open(run)
    if json:
        terminal.out.print_json(json_module.dumps({**terminal.result(opened), **plain_values(opened.facts)}))
    else:
        opened.show()
