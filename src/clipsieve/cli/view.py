"""``clipsieve view``: a run in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

LACKING = ("starlette", "uvicorn")
"""What the extra ``view`` installs."""


def view(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run.")] = "clipsieve-run",
    index: Annotated[
        str | None, typer.Option(metavar="INDEX", help="Search in it: a path, or a clickhouse:// or chdb:// URL.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Where to listen; 0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback requires a token.")] = "127.0.0.1",
    open: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Explore a run in the browser: move thresholds, see what changes, search, and apply your choice.

    clipsieve view run --index run.index
    """
    from clipsieve.cli.terminal import err, out
    from clipsieve.errors import UsageError

    try:
        from clipsieve.web.server import serve
    except ModuleNotFoundError as failure:
        if (failure.name or "").partition(".")[0] not in LACKING:
            raise
        raise UsageError("clipsieve view needs an extra: pip install 'clipsieve[view]'") from None
    from clipsieve.api import Run

    def ready(address: str) -> None:
        out.print(f"{address}   (Ctrl-C ends it)", markup=False)
        if open:
            typer.launch(address)

    serve(
        Run.open(run), index=index, host=host, port=port, ready=ready,
        say=lambda line: err.print(line, markup=False),
    )  # fmt: skip
