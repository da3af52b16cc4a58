"""What is in an output folder already, and what becomes of it: the modes of a writer.

Files of a pipeline begin with 12 hexadecimal digits that stand for its name, its source as asked for and the format, so
that the same pipeline over the same source replaces its own files and those of others stay. The ledger of a run is kept
beside its files, in ``.clipsieve/DIGITS``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from clipsieve.api.runs import Run, open_source
from clipsieve.core.lock import locked
from clipsieve.dropin.nemo_curator.readers import InterleavedReader
from clipsieve.dropin.nemo_curator.writers import InterleavedWriter
from clipsieve.errors import ClipsieveError, OutputError
from clipsieve.readers.files import find
from clipsieve.recipe import Recipe

RUNS = ".clipsieve"
"""The hidden folder of the runs whose output lies beside it."""

_OUTPUTS = (".parquet", ".tar")

log = logging.getLogger("clipsieve")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a pipeline writes: the beginning of its files' names, and its run folder."""

    prefix: str
    run: Path


def place_of(
    name: str,
    reader: InterleavedReader,
    writer: InterleavedWriter,
    recipe_at: Callable[[Place], Recipe],
    *,
    resume: bool,
) -> Place:
    """Where the pipeline ``name`` writes, with room made there: what the run replaces is gone.

    ``resume`` says whether it may go on where an earlier run of the same recipe stopped. Raises ``FileExistsError`` or
    ``OutputError`` when the mode forbids it.
    """
    told = json.dumps([name, reader.format, reader.paths, writer.format])
    digits = hashlib.sha256(told.encode()).hexdigest()[:12]
    for number in count(1):
        stem = digits if number == 1 else f"{digits}_{number}"
        place = Place(prefix=f"{stem}-", run=writer.folder / RUNS / stem)
        if resume and _goes_on(place.run, recipe_at(place)):
            return place
        if writer.mode != "append" or not (place.run.exists() or _files(place, writer)):
            break
    writer.check_mode()
    if writer.mode in ("ignore", "overwrite") and (place.run.exists() or _outputs(writer.folder)):
        open_source(recipe_at(place))  # what cannot be read at all costs nothing of what is there
    if writer.mode == "overwrite":
        _empty(writer, reader)
    elif writer.mode == "ignore":
        _remove(place.run)
        for path in _files(place, writer):
            path.unlink()
        if others := _outputs(writer.folder):
            log.info("%s holds %d other files; mode='overwrite' removes them first", writer.folder, len(others))
    return place


def _empty(writer: InterleavedWriter, reader: InterleavedReader) -> None:
    """Removes what writers have written to the folder, and their runs."""
    _check_removable(writer.folder, reader)
    runs = writer.folder / RUNS
    if runs.is_dir() and not runs.is_symlink():
        for run in runs.iterdir():
            _remove(run)
    for path in _outputs(writer.folder):
        path.unlink()


def _goes_on(path: Path, recipe: Recipe) -> bool:
    """Whether ``path`` is an unfinished run of this recipe over the same files."""
    stored = path / "shards.json"
    if (path / "summary.json").exists() or not stored.exists():
        return False
    try:
        same = Run.open(path).recipe.identity() == recipe.identity()
        before = {(file["path"], file["size"], file["version"]) for file in json.loads(stored.read_text())["files"]}
    except (ClipsieveError, ValueError, KeyError):
        return False
    return same and before == {(file.path, file.size, file.version) for file in open_source(recipe).files()}


def _files(place: Place, writer: InterleavedWriter) -> list[Path]:
    """The files of earlier runs at ``place``, of either format."""
    named = re.compile(rf"{re.escape(place.prefix)}\d[\d-]*({'|'.join(map(re.escape, _OUTPUTS))})")
    return [path for path in _outputs(writer.folder) if named.fullmatch(path.name)]


def _outputs(folder: Path) -> Sequence[Path]:
    """The files that a writer could have written: Parquet and tars in the folder itself, never links."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix in _OUTPUTS and path.is_file() and not path.is_symlink()
    )


def _check_removable(folder: Path, reader: InterleavedReader) -> None:
    real = folder.resolve()
    for kept, what in ((Path.home(), "your home folder"), (Path.cwd(), "the working directory")):
        if kept.resolve().is_relative_to(real):
            raise OutputError(
                f"{folder}: not emptied by mode='overwrite', since it holds {what}; choose another folder"
            )
    inputs = [file.path for path in reader.paths if "://" not in path for file in find(path).files]
    if any(Path(path).resolve().is_relative_to(real) for path in inputs):
        raise OutputError(f"{folder}: not emptied by mode='overwrite', since it holds the input; choose another folder")


def _remove(run: Path) -> None:
    """Removes a run folder that no process holds."""
    if run.is_symlink() or not run.is_dir():
        return
    try:
        held = locked(run / ".lock")
    except BlockingIOError:
        raise OutputError(f"{run} is in use by another process; wait for it or choose another folder") from None
    with held:
        shutil.rmtree(run)
