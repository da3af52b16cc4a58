"""Scores of a whole data set, for a finished run that kept its vectors: a column beside its ledger, no image read."""

from __future__ import annotations

import dataclasses
import difflib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.api.added import add_columns
from clipsieve.api.progress import Progress, Silent
from clipsieve.api.runs import Run
from clipsieve.core import storage
from clipsieve.core.contracts import DatasetScorer, Vectors, VectorsOf
from clipsieve.core.layout import Mask
from clipsieve.core.rules import parse
from clipsieve.engines.duplicates import gathered
from clipsieve.errors import OutputError, RecipeError, RunFolderError
from clipsieve.runfolder import TEMPORARY, RunFolder
from clipsieve.scorers import COLUMNS, DATASET_COLUMNS

GATHERED = f"{TEMPORARY}vectors"
"""Folder in ``RUN/added/`` of the vectors of all shards, while they are compared."""


def add_score(run: Run | str | Path, name: str, *, progress: Progress | None = None, **options: Any) -> Run:
    """Adds the column ``name`` (``neg_clip_loss`` or ``nearest_similarity``) to a finished run that kept its vectors.

    ``options`` are the fields of its scorer, ``NegClipLoss`` or ``NearestSimilarity``. The values are those of all
    images that the run embedded, whatever became of them; the column is in place of one of that name. It is null where
    the image was not embedded, NaN where it cannot be scored: a broken image, one without a text.

    Raises ``RecipeError`` when the request is wrong, ``RunFolderError`` when the run is unfinished, without the
    vectors, or decided by that score.
    """
    scorer = _scorer(name, options)
    run = run if isinstance(run, Run) else Run.open(run)
    progress = progress or Silent()
    run.shards()  # or says that it is unfinished
    with RunFolder.reopen(run.path) as folder:
        _check_decided(run, name)
        _check_vectors(run, folder, name, scorer)
        parts = [_Part.look(run, folder, shard, scorer) for shard in folder.readable()]
        images = sum(len(part.places) for part in parts)
        if not images:
            wanted = " and ".join(f"{of} vector" for of in scorer.reads)
            raise RunFolderError(f"{run.path} has no image with an {wanted}; there is nothing to score")
        progress.say(f"{name} of {images:,} images of {run.path}, by their vectors")
        with _gathered(run, folder, scorer, parts) as vectors:
            scored = scorer.score(vectors, progress.compare)
        about = {"version": metadata.version("clipsieve"), "images": images, **dataclasses.asdict(scorer)}  # type: ignore[call-overload]
        add_columns(folder, name, _tables(scorer, scored, parts, {name: json.dumps(about)}))
    return Run(run.path)


def read_options(name: str, texts: Iterable[str]) -> dict[str, Any]:
    """The options of the score ``name`` from texts such as ``tau=0.02``, each as the type of its field.

    Raises ``RecipeError``.
    """
    kinds: dict[str, type] = {field.name: type(field.default) for field in _fields(_class_of(name))}
    found = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise RecipeError(f"{name}: an option reads KEY=VALUE, not {text!r}")
        if key in found:
            raise RecipeError(f"{name}: the option {key} appears twice")
        _check_option(name, key, kinds)
        try:
            found[key] = kinds[key](value)
        except ValueError:
            kind = "a whole number" if kinds[key] is int else "a number"
            raise RecipeError(f"{name}: {key} is {kind}, not {value!r}") from None
    return found


def _class_of(name: str) -> type[DatasetScorer]:
    """The scorer of the column ``name``. Raises ``RecipeError`` with the nearest one."""
    if name in DATASET_COLUMNS:
        return DATASET_COLUMNS[name]
    known = ", ".join(DATASET_COLUMNS)
    if name in COLUMNS:
        raise RecipeError(f"{name} is computed while a run reads its images; to a finished one can be added: {known}")
    near = difflib.get_close_matches(name.lower(), DATASET_COLUMNS, n=1)
    hint = f"did you mean {near[0]!r}? known" if near else "known"
    raise RecipeError(f"unknown score {name!r}; {hint}: {known}")


def _scorer(name: str, options: Mapping[str, Any]) -> DatasetScorer:
    """The scorer with its options. Raises ``RecipeError``."""
    scorer = _class_of(name)
    for key in options:
        _check_option(name, key, [field.name for field in _fields(scorer)])
    try:
        return scorer(**options)
    except ValueError as failure:
        raise RecipeError(f"{name}: {failure}") from None


def _fields(scorer: type[DatasetScorer]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(scorer)  # type: ignore[arg-type]  # every scorer in the table is a dataclass


def _check_option(name: str, key: str, known: Iterable[str]) -> None:
    known = list(known)
    if key not in known:
        near = difflib.get_close_matches(key.lower(), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"options: {', '.join(known)}"
        raise RecipeError(f"{name}: no option {key!r}; {hint}")


def _check_decided(run: Run, name: str) -> None:
    """Raises ``RunFolderError`` when rules of the run read that score: with another, its verdicts would seem wrong."""
    reading = [rule.text for keep in run.recipe.keep for rule in parse(keep.rule) if rule.name == name]
    if run.recipe.dedup and run.recipe.dedup.keep == name:
        reading.append(run.recipe.dedup.text)
    if reading:
        raise RunFolderError(f"{run.path} was decided by its own {name} ({reading[0]}), which stays as it is")


def _check_vectors(run: Run, folder: RunFolder, name: str, scorer: DatasetScorer) -> None:
    """Raises ``RunFolderError`` when the run kept no vectors of the kind."""
    shard = min(folder.done("ledger"))
    run.vectors(shard)
    if "text" in scorer.reads and not storage.exists(folder.vectors(shard, "text")):
        raise RunFolderError(
            f"{run.path} holds no text vectors, which {name} needs: run its recipe with --vectors and clip_score "
            "among its rules or scores, into another --out"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """A shard's ledger rows: which have a value or NaN, ``computed`` ``(rows,)``, and the ``places`` to be scored."""

    shard: int
    computed: Mask
    places: npt.NDArray[np.int64]

    @classmethod
    def look(cls, run: Run, folder: RunFolder, shard: int, scorer: DatasetScorer) -> _Part:
        """Looks which vectors are there."""
        ledger = folder.part_table("ledger", shard, ["image", "error"])
        present: dict[VectorsOf, Mask] = {}
        for of in ("image", *scorer.reads):
            vectors = run.vectors(shard, of)
            if len(vectors) != ledger.num_rows:
                where = folder.vectors(shard, of)
                raise RunFolderError(f"{where} does not go with the ledger: the run folder is damaged")
            present[of] = np.asarray(~np.isnan(vectors).any(axis=1), dtype=bool)
        failed = pc.and_(pc.is_valid(ledger["image"]), pc.is_valid(ledger["error"])).to_numpy()
        places = np.flatnonzero(np.all([present[of] for of in scorer.reads], axis=0))
        return cls(shard=shard, computed=failed | present["image"], places=places)


@contextmanager
def _gathered(run: Run, folder: RunFolder, scorer: DatasetScorer, parts: Sequence[_Part]) -> Iterator[list[Vectors]]:
    """The vectors that are read, each kind in one file, memory-mapped; the files go afterwards."""
    images = sum(len(part.places) for part in parts)
    size = images * run.vectors(parts[0].shard).shape[1] * 4 * len(scorer.reads)
    # A disk that fills up while a map is written ends the process without a word.
    local = storage.is_local(folder.path)
    disk = folder.path if local else folder.scratch
    if (free := shutil.disk_usage(disk).free) < size:
        raise OutputError(
            f"{disk} has no room to gather the vectors of {images:,} images ({size / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB free); make room, then run the same command again"
        )
    place = (disk / "added" if local else disk) / GATHERED
    try:
        yield [
            gathered(place / f"{of}.npy", ((run.vectors(part.shard, of), part.places) for part in parts), images)
            for of in scorer.reads
        ]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _tables(
    scorer: DatasetScorer, scored: Mapping[str, pa.Array], parts: Sequence[_Part], about: Mapping[str, str]
) -> Iterator[tuple[int, pa.Table]]:
    """The columns of each shard's ledger rows: null where the image was not embedded, NaN where it cannot be scored."""
    fields = [pa.field(name, type, metadata={"unit": scorer.unit}) for name, type in scorer.columns.items()]
    start = 0
    for part in parts:
        columns = []
        for field in fields:
            values = np.full(len(part.computed), np.nan)
            values[part.places] = scored[field.name].slice(start, len(part.places)).to_numpy()
            columns.append(pa.array(values, field.type, mask=~part.computed))
        start += len(part.places)
        yield part.shard, pa.table(columns, schema=pa.schema(fields, metadata=about))
