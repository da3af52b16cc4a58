"""``clipsieve report``: a run as one HTML file."""

from __future__ import annotations

from typing import Annotated

import typer

from clipsieve.cli import options as o


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")] = "clipsieve-run",
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="HTML", help="The file; default: RUN/report.html.")
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Write a report of a run: one HTML file with funnel, histograms, images at each threshold, and errors.

    clipsieve report clipsieve-run -o report.html
    """
    import json as json_module

    from clipsieve.api import Run
    from clipsieve.api.report import write_report
    from clipsieve.cli.terminal import err, out
    from clipsieve.core.text import printable
    from clipsieve.report.words import plural

    written = write_report(Run.open(run), output)
    if written.without_pictures:
        some = "some of its images" if written.images else "its images"
        err.print(f"warning: {printable(written.without_pictures)}: {some} cannot be shown", markup=False)
    if json:
        about = {
            "report": str(written.path),
            "bytes": written.bytes,
            "images": written.images,
            "without_pictures": written.without_pictures,
        }
        out.print_json(json_module.dumps(about))
    elif not quiet:
        told = f"report  {written.path}   ({plural(written.images, 'image')} shown, {written.bytes / 1e6:.1f} MB)"
        out.print(told, markup=False)
