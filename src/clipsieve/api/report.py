"""The report of a run: what its ledger says, with pictures read again from its source, in one HTML file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from clipsieve.api.pictures import Pictures
from clipsieve.api.runs import Run
from clipsieve.core import storage
from clipsieve.core.thumbnail import as_jpeg
from clipsieve.errors import ClipsieveError, OutputError
from clipsieve.report.examples import examples
from clipsieve.report.page import Small, page
from clipsieve.report.values import Scores
from clipsieve.runfolder import atomic

NAME = "report.html"

BYTES = 16_000
"""Of one picture as JPEG at most, about twice what a photograph needs: 400 of them in base64 are 8.6 MB."""

SIDES = (192, 128, 96, 64)
"""Sides in pixels, the first at which a picture is small enough."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that was written: where, how large, how many ``images`` it shows, and why some or all are missing."""

    path: Path
    bytes: int
    images: int
    without_pictures: str | None = None


def write_report(run: Run, path: str | Path | None = None) -> Report:
    """Writes the report of ``run`` to ``path`` (``report.html`` in its folder), whole or not at all.

    Of an unfinished run it tells what is committed, and says so. Where the images cannot be read any more, the report
    is made without them and says why. Raises ``OutputError`` when the file cannot be written.
    """
    target = storage.place(path) if path is not None else run.path / NAME
    if target.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{target} would be no HTML file; give a name that ends in .html, such as {NAME}")
    if storage.is_folder(target):
        raise OutputError(f"{target} is a folder; give the name of a file")
    facts = run.facts
    scores = Scores(facts.ledger, [*facts.steps, *facts.counts.dropped_by])
    chosen = examples(scores, facts.plan)
    pictures, without = _pictures(run, {row for tile in chosen.tiles() for row in tile.images})
    text = page(facts, scores, chosen, pictures, without).encode("utf-8", "backslashreplace")
    with atomic(target) as file:
        file.write(text)
    images = sum(one.jpeg is not None for one in pictures.values())
    return Report(path=target, bytes=len(text), images=images, without_pictures=without)


def _pictures(run: Run, rows: Iterable[int]) -> tuple[dict[int, Small], str | None]:
    """The pictures of some ledger rows, and why there are none, or no more."""
    found: dict[int, Small] = {}
    try:
        for row, one in Pictures(run).many(rows, SIDES[0]):
            found[row] = Small(
                jpeg=None if one.thumbnail is None else _small(one.thumbnail), caption=one.caption, error=one.error
            )
    except ClipsieveError as failure:
        return found, str(failure)
    return found, None


def _small(thumbnail: Image.Image) -> bytes:
    for side in SIDES:
        thumbnail.thumbnail((side, side))
        if len(data := as_jpeg(thumbnail)) <= BYTES:
            break
    return data
