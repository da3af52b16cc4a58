"""The images of an earlier data set, a run or an index, against which near duplicates are searched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.api.runs import Run
from clipsieve.core import storage
from clipsieve.core.contracts import Vectors
from clipsieve.core.ledger import image_names, whole_images
from clipsieve.core.text import without_password
from clipsieve.engines.duplicates import gathered
from clipsieve.engines.ledger_columns import Earlier
from clipsieve.errors import IndexStoreError, RunFolderError
from clipsieve.index import Index, vectors_of
from clipsieve.plan import Plan
from clipsieve.runfolder import RunFolder

_COLUMNS = ["shard", "sample", "image", "sample_id", "reference", "verdict", "error"]


def check_earlier(plan: Plan, own: Iterable[Path], encoder: str | None) -> None:
    """Raises ``RunFolderError`` when what ``dedup: {against: ...}`` names cannot be compared with.

    That is when it is neither a finished run nor an index, is one of the ``own`` folders, has another model than
    ``encoder``, the fingerprint of the run's own, or lacks what is compared.
    """
    if plan.dedup is None or plan.dedup.by.against is None:
        return
    place = without_password(plan.dedup.by.against)
    folder = storage.place_or_none(place)
    if folder is not None and folder.resolve() in (path.resolve() for path in own):
        raise RunFolderError(f"{place} is the run itself; --against names an earlier one")
    earlier = _opened(plan.dedup.by.against)
    if isinstance(earlier, Index):
        earlier.close()
    column = plan.dedup.column
    if column is not None:
        if isinstance(earlier, Index) or column not in earlier.columns.names:
            raise RunFolderError(f"{place} has no {column}: give a run of a recipe with 'scores: {{{column}: {{}}}}'")
        return
    if isinstance(earlier, Run):
        earlier.vectors(earlier.shards()[0].number)  # or says that it has none
    theirs = earlier.fingerprint if isinstance(earlier, Index) else earlier.executed["encoder"]
    if theirs != encoder:
        raise RunFolderError(
            f"{place} was made with another model than this run (encoder {theirs}, here {encoder}); their vectors "
            "cannot be compared"
        )


def _opened(place: str) -> Run | Index:
    folder = storage.place_or_none(place)
    if folder is not None and storage.is_file(folder / "recipe.yaml"):
        run = Run.open(place)
        run.shards()  # or says that it is not finished
        return run
    try:
        return Index.open(place)
    except IndexStoreError as failure:
        raise RunFolderError(
            f"{without_password(place)} is neither a run folder (it has no recipe.yaml) nor an index ({failure})"
        ) from None


def images_before(plan: Plan, folder: RunFolder) -> Earlier | None:
    """The images of what ``dedup: {against: ...}`` names (of a run those kept) with what the plan compares.

    None without it; vectors are gathered in ``folder``.
    """
    if plan.dedup is None or plan.dedup.by.against is None:
        return None
    place = without_password(plan.dedup.by.against)
    earlier = _opened(plan.dedup.by.against)
    if isinstance(earlier, Index):
        with earlier:
            names, vectors = _of_index(earlier, folder.scratch)
        return Earlier(names=names, compared=vectors, title=place)
    if plan.dedup.column is not None:
        ledger = earlier.ledger.filter(pa.array(whole_images(earlier.ledger)))
        ledger = ledger.filter(pc.is_valid(ledger[plan.dedup.column]))
        return Earlier(names=image_names(ledger), compared=ledger[plan.dedup.column], title=place)
    names, vectors = _of_run(earlier, folder.scratch)
    return Earlier(names=names, compared=vectors, title=place)


def _of_run(run: Run, folder: Path) -> tuple[pa.Array, Vectors]:
    """Names and vectors of the kept images of a run, in input order."""
    chosen: dict[int, npt.NDArray[np.int64]] = {}
    names = []
    for shard in run.shards():
        ledger = RunFolder(run.path).part_table("ledger", shard.number, _COLUMNS)
        kept = whole_images(ledger) & ~np.isnan(run.vectors(shard.number)[:, 0])
        chosen[shard.number] = np.flatnonzero(kept)
        names.append(image_names(ledger.filter(pa.array(kept))))
    every = pa.concat_arrays(names)
    parts = ((run.vectors(shard), rows) for shard, rows in chosen.items())
    return every, gathered(folder / "against.npy", parts, len(every))


def _of_index(index: Index, folder: Path) -> tuple[pa.Array, Vectors]:
    """Names and vectors of all images of an index, by id: a store gives its rows in any order."""
    told: list[pa.RecordBatch] = []

    def scanned() -> Iterator[tuple[Vectors, npt.NDArray[np.int64]]]:
        for batch in index.vectors():
            told.append(batch.select(["id", "reference"]))
            yield vectors_of(batch), np.arange(batch.num_rows)

    vectors = gathered(folder / "scanned.npy", scanned(), len(index))
    rows = pa.Table.from_batches(told)
    order = pc.sort_indices(rows["id"])
    names = pc.coalesce(rows["reference"], rows["id"]).take(order).combine_chunks()
    return names, gathered(folder / "against.npy", [(vectors, order.to_numpy())], len(names))
