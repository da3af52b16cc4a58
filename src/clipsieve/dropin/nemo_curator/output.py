"""What is in an output folder already, and what becomes of it: the modes of a writer.

Files of a pipeline begin with 12 hexadecimal digits that stand for its name, its source as asked for and the format, so
that the same pipeline over the same source replaces its own files and those of others stay. The ledger of a run is kept
beside its files, in ``.clipsieve/DIGITS``, and by these folders it is known what runs have written: nothing else is
ever removed, and nothing that is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from clipsieve.api.runs import Run, open_source
from clipsieve.core.contracts import Reader
from clipsieve.core.fetch import from_part
from clipsieve.core.lock import Lock, locked
from clipsieve.dropin.nemo_curator.readers import InterleavedReader
from clipsieve.dropin.nemo_curator.writers import InterleavedWriter
from clipsieve.engines.commit import output_name
from clipsieve.errors import ClipsieveError, OutputError
from clipsieve.readers.files import find, open_file
from clipsieve.recipe import Recipe
from clipsieve.runfolder import clean_partials

RUNS = ".clipsieve"
"""The hidden folder of the runs whose output lies beside it."""

_OUTPUTS = (".parquet", ".tar")
_STEM = re.compile(r"[0-9a-f]{12}(_\d+)?")

log = logging.getLogger("clipsieve")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a pipeline writes: a folder, and the stem that its run folder is called and its files begin with."""

    folder: Path
    stem: str

    @property
    def prefix(self) -> str:
        """The beginning of its files' names."""
        return f"{self.stem}_"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / RUNS / self.stem

    def files(self) -> list[Path]:
        """The files of runs at this place, of either format."""
        named = output_name(self.prefix)
        return [path for path in _outputs(self.folder) if named.match(path.name)]


def place_of(
    name: str,
    reader: InterleavedReader,
    writer: InterleavedWriter,
    recipe_at: Callable[[Place], Recipe],
    *,
    resume: bool,
) -> Place:
    """Where the pipeline ``name`` writes, with room made there: what the run replaces is gone.

    ``resume`` says whether it may go on where an earlier run of the same recipe stopped, if the mode lets it. Raises
    ``FileExistsError`` or ``OutputError`` when the mode forbids it.
    """
    told = json.dumps([name, reader.format, reader.paths, writer.format])
    digits = hashlib.sha256(told.encode()).hexdigest()[:12]
    for number in count(1):
        place = Place(folder=writer.folder, stem=digits if number == 1 else f"{digits}_{number}")
        if resume and writer.mode in ("ignore", "append") and _goes_on(place.run, recipe_at(place)):
            return place
        if writer.mode != "append" or not (place.run.exists() or place.files()):
            break
    writer.check_mode()
    if writer.mode in ("ignore", "overwrite"):
        _make_room(place, reader, writer, recipe_at)
    return place


def _make_room(
    place: Place, reader: InterleavedReader, writer: InterleavedWriter, recipe_at: Callable[[Place], Recipe]
) -> None:
    """Removes what earlier runs wrote, at this place or under ``overwrite`` anywhere in the folder, and those runs."""
    overwrite = writer.mode == "overwrite"
    old = [place, *(other for other in _recorded(place.folder) if overwrite and other != place)]
    files = [path for one in old for path in one.files()]
    others = [path for path in _outputs(place.folder) if path not in files]
    there = [one for one in old if one.run.is_dir() and not one.run.is_symlink()]
    if files or there or (others and overwrite):
        source = open_source(recipe_at(place))  # what cannot be read at all costs nothing of what is there
        _check_not_read([*files, *(others if overwrite else ())], [one.run for one in there], source, reader)
    if others and overwrite:
        raise OutputError(
            f"{others[0]}: mode='overwrite' removes only what runs wrote that are recorded in {place.folder / RUNS}; "
            "remove it by hand or choose another folder"
        )
    with ExitStack() as held:
        for one in there:
            held.enter_context(closing(_locked(one.run)))
        for path in files:
            path.unlink()
        for one in there:
            shutil.rmtree(one.run)
            clean_partials(place.folder, output_name(one.prefix))
    if others:
        log.info("%s also holds %d files that this pipeline did not write; they stay", place.folder, len(others))


def _recorded(folder: Path) -> Iterator[Place]:
    """Where runs have written, by their folders."""
    runs = folder / RUNS
    if runs.is_dir() and not runs.is_symlink():
        yield from (Place(folder=folder, stem=run.name) for run in sorted(runs.iterdir()) if _STEM.fullmatch(run.name))


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


def _outputs(folder: Path) -> Sequence[Path]:
    """What a writer could have written: Parquet and tars in the folder itself, links to some too."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _OUTPUTS and not path.is_dir())


def _check_not_read(files: Sequence[Path], runs: Sequence[Path], source: Reader, reader: InterleavedReader) -> None:
    """Raises ``OutputError`` when the source is among ``files`` or in ``runs``, or finds its images there."""
    gone = {path.resolve(): path for path in files} | {run.resolve(): run for run in runs}
    for path in _read_by(source, reader) if gone else ():
        local = _local(path)
        found = next((one for one in (local, *local.parents) if one in gone), None) if local else None
        if found is not None:
            raise OutputError(f"{gone[found]}: the input reads from it; nothing was replaced, choose another folder")


def _read_by(source: Reader, reader: InterleavedReader) -> Iterator[str]:
    """The files of the source, of a chain of filesystems its last, and then those that its rows refer to."""
    files = [file.path for file in source.files()]
    yield from files
    for chain in reader.paths:
        if "::" in chain:
            yield from (file.path for file in find(chain.rpartition("::")[2]).files)
    for path in files if reader.format == "parquet" else ():
        with open_file(path) as file:
            stored = pq.ParquetFile(file)
            if "source_ref" not in stored.schema_arrow.names:
                continue
            for batch in stored.iter_batches(columns=["source_ref"]):
                for reference in pc.unique(batch.column(0)).to_pylist():
                    image = from_part(None, reference, None, path.rpartition("/")[0])
                    if image.path is not None:
                        yield image.path


@lru_cache(maxsize=4096)  # many images lie in one tar
def _local(path: str) -> Path | None:
    """The file of this machine that a path leads to, whatever links are on the way; None for any other."""
    if split_protocol(path)[0] not in (None, *LocalFileSystem.protocol):
        return None
    return Path(LocalFileSystem._strip_protocol(path)).resolve()


def _locked(run: Path) -> Lock:
    """A run folder that no other process holds."""
    try:
        return locked(run / ".lock")
    except BlockingIOError:
        raise OutputError(f"{run} is in use by another process; wait for it or choose another folder") from None
