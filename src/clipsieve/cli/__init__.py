"""The command line: one file a verb. A failure is one clear line; ``--debug`` shows where it came from.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but counts or the error policy say no, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

import typer

from clipsieve.cli import demo, doctor, plan, run, score, show
from clipsieve.errors import ClipsieveError

app = typer.Typer(
    name="clipsieve",
    help="Curate image-text data with CLIP: score every image once, keep what rules allow, say what became of each.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"clipsieve {version('clipsieve')}")
        raise typer.Exit


@app.callback()
def _main(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of a failure."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    if debug:
        os.environ["CLIPSIEVE_DEBUG"] = "1"


app.command("run")(run.run)
app.command("score")(score.score)
app.command("plan")(plan.plan)
app.command("show")(show.show)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """The entry point of the ``clipsieve`` command."""
    try:
        app()
    except ClipsieveError as failure:
        if os.environ.get("CLIPSIEVE_DEBUG"):
            raise
        typer.echo(f"error: {failure}", err=True)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted: what is committed stays; run the same command again to go on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
