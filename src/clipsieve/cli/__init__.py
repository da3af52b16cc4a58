"""The command line: one file a verb. A failure is one clear line; ``--debug`` shows where it came from.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but counts or the error policy say no, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

import typer

from clipsieve.cli import (
    add_score,
    apply,
    dedup,
    demo,
    doctor,
    export,
    index,
    label,
    plan,
    report,
    run,
    score,
    search,
    show,
    tune,
    view,
)
from clipsieve.core import urls
from clipsieve.core.text import printable
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
app.command("report")(report.report)
app.command("view")(view.view)
app.command("tune")(tune.tune)
app.command("apply")(apply.apply)
app.command("dedup")(dedup.dedup)
app.command("label")(label.label)
app.command("add-score")(add_score.add_score)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("export")(export.export)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """The entry point of the ``clipsieve`` command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    try:
        code = app(prog_name="clipsieve", standalone_mode=False)
    except ClipsieveError as failure:
        if os.environ.get("CLIPSIEVE_DEBUG"):
            raise
        _end(f"error: {failure}", failure.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        # Who reads, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except MemoryError:
        _end("error: out of memory; lower --workers or --batch-size, then run the same command again to resume", 1)
    except OSError as failure:
        if os.environ.get("CLIPSIEVE_DEBUG"):
            raise
        place = failure.filename or "printing or reading"
        _end(f"error: {place}: {failure.strerror or failure} (--debug shows where)", 1)
    except Exception as failure:
        wrong_usage = getattr(failure, "format_message", None)  # what typer raises, whichever click it comes with
        if wrong_usage is None:
            raise
        if context := getattr(failure, "ctx", None):
            if not wrong_usage():  # no arguments at all
                typer.echo(context.get_help())
                sys.exit(2)
            _end(f"error: {wrong_usage()} (see {context.command_path} --help)", 2)
        _end(f"error: {wrong_usage()}", 2)
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code
        _end("interrupted: committed shards stay; run the same command again to resume", INTERRUPTED)
    sys.exit(code)


def _interrupted(number: int, frame: Any) -> None:
    """On Ctrl-C: before anything waits for threads, these no longer wait for images."""
    urls.interrupt()
    signal.default_int_handler(number, frame)


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


def _end(line: str, code: int) -> NoReturn:
    """Ends with one line on standard error, whatever characters a file name or a cell has brought into it."""
    text = " ".join(line.split())
    with suppress(OSError):
        typer.echo(printable(text), err=True)
    with suppress(OSError):
        sys.stdout.flush()
    sys.exit(code)
