"""A finished run handed to other tools: one file a format, and all of them in the table below."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipsieve.api.export import atlas, csv, datacomp, datasets, fiftyone
from clipsieve.api.export.places import check_place
from clipsieve.api.export.request import Exported, Request, Verdict, check_verdict
from clipsieve.api.pictures import finished_run
from clipsieve.api.progress import Progress, Silent
from clipsieve.api.runs import Run
from clipsieve.errors import RecipeError

__all__ = ["FORMATS", "Exported", "export_run"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """Who writes a format, the ending of its one file (nothing for a folder), and what is exported if nothing is
    said."""

    write: Callable[[Request, Path], Exported]
    suffix: str
    verdict: Verdict


FORMATS: Mapping[str, Format] = {
    "datasets": Format(write=datasets.write, suffix=datasets.SUFFIX, verdict="kept"),
    "fiftyone": Format(write=fiftyone.write, suffix=fiftyone.SUFFIX, verdict="all"),
    "atlas": Format(write=atlas.write, suffix=atlas.SUFFIX, verdict="all"),
    "datacomp": Format(write=datacomp.write, suffix=datacomp.SUFFIX, verdict="kept"),
    "csv": Format(write=csv.write, suffix=csv.SUFFIX, verdict="all"),
}


def export_run(
    run: Run | str | Path,
    to: str,
    *,
    verdict: str | None = None,
    uid: str | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Writes a finished run to ``FORMAT:PATH``, such as ``datasets:folder/``; see ``FORMATS``.

    ``verdict`` (``kept``, ``dropped``, ``failed`` or ``all``) says which images; what is to be trained on is otherwise
    ``kept`` (``datasets``, ``datacomp``), and what is to be looked at ``all``. ``uid`` names the column of the source
    that holds DataComp's uids, by default the sample ids do.

    Raises ``RecipeError`` for a request that cannot be right, ``RunFolderError`` when the run is not finished, lacks
    vectors or its source has changed, and ``OutputError`` when there is nothing to write or it cannot be written.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    name, path = _parsed(to)
    known = FORMATS[name]
    if uid is not None and name != "datacomp":
        raise RecipeError("--uid goes with datacomp, the only format that has uids")
    asked = known.verdict if verdict is None else check_verdict(verdict)
    place = check_place(name, path, known.suffix, run.path)
    run.shards()  # refuses a run that is not finished
    with finished_run(": its images cannot be exported"):
        return known.write(Request(run=run, verdict=asked, uid=uid, progress=progress or Silent()), place)


def _parsed(to: str) -> tuple[str, str]:
    name, _, path = to.partition(":")
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]}:PATH?" if near else f"the formats are {', '.join(FORMATS)}"
        raise RecipeError(f"--to {to}: give FORMAT:PATH, such as csv:ledger.csv; {hint}")
    return name, path
