"""``clipsieve show``: a run in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipsieve.cli import options as o


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")] = Path("clipsieve-run"),
    json: o.Json = False,
) -> None:
    """Show a run: the funnel, percentiles and a histogram of each score, labels, errors, and how it was made."""
    from clipsieve.api import Run
    from clipsieve.cli import terminal

    opened = Run.open(run)
    if json:
        terminal.finish(opened, as_json=True, quiet=False)
    else:
        opened.show()
