"""What an export is asked for, what came of it, and the chosen images of a run, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.api.added import ledger_part
from clipsieve.api.progress import Progress
from clipsieve.api.rows import bytes_of, captions_of
from clipsieve.api.runs import Run
from clipsieve.core.fetch import ImageSource
from clipsieve.core.layout import Mask
from clipsieve.core.threads import cores
from clipsieve.errors import OutputError, RecipeError
from clipsieve.runfolder import RunFolder

Verdict: TypeAlias = Literal["kept", "dropped", "failed", "all"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

AT_ONCE = 100
"""Images whose bytes are in memory together, and the rows of a row group where they are stored: what ``datasets``
takes for images."""

_KEYS = ("shard", "row", "image_number", "sample", "has_text")
"""Columns that lead back to the ledger and are not much to look at."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A finished run, which of its images are asked for, and for DataComp the column of the source with the uids."""

    run: Run
    verdict: Verdict
    uid: str | None
    progress: Progress

    def chosen(self, rows: pa.Table, column: str = "verdict") -> Mask:
        """Which of some ledger rows have the verdict that is asked for, ``(rows,)``."""
        if self.verdict == "all":
            return np.ones(rows.num_rows, dtype=bool)
        chosen: Mask = pc.equal(rows[column], self.verdict).to_numpy()
        return chosen

    def chosen_images(self, rows: pa.Table) -> Mask:
        """The same without the rows of samples that have no image."""
        images: Mask = pc.is_valid(rows["image"]).to_numpy()
        return self.chosen(rows) & images

    def check_some(self, rows: int) -> None:
        """Raises ``OutputError`` when an export would be empty."""
        if not rows:
            which = "" if self.verdict == "all" else f"{self.verdict} "
            raise OutputError(f"{self.run.path} has no {which}images to export")

    @property
    def schema(self) -> pa.Schema:
        """The columns of ``told``."""
        ledger = ledger_part(RunFolder(self.run.path), self.run.shards()[0].number).slice(0, 0)
        schema: pa.Schema = told(ledger, pa.array([], pa.string())).schema
        return pa.schema([field.remove_metadata() for field in schema])


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote: where, how many rows, and ``notes`` of what is not as one might expect, a line each."""

    path: Path
    rows: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """At most ``AT_ONCE`` images of one shard: what is told of them (a row each), and where their bytes are."""

    shard: int
    table: pa.Table
    sources: Sequence[ImageSource]
    threads: ThreadPoolExecutor

    def bytes(self) -> list[bytes | None]:
        """The encoded bytes as stored, None for an image that cannot be read."""
        return list(self.threads.map(bytes_of, self.sources))


def told(rows: pa.Table, captions: pa.Array) -> pa.Table:
    """The columns that go with an image: the caption and all of the ledger, what people look at first. ``image``, which
    elsewhere means the picture, becomes ``image_number``."""
    table = rows.rename_columns(["image_number" if name == "image" else name for name in rows.column_names])
    others = [name for name in table.column_names if name not in _KEYS]
    return table.select([*others, *_KEYS]).add_column(0, "caption", captions)


def images_of(request: Request, wanted: Callable[[int, pa.Table], Mask] | None = None) -> Iterator[Images]:
    """The images that are asked for, in the order of the ledger; no image is opened yet.

    ``wanted`` says instead, of the ledger rows of a shard, which of them are images to give.
    """
    shards = request.run.shards()
    batches = request.run.batches()
    with ThreadPoolExecutor(cores()) as threads:
        for place, (shard, rows, batch) in enumerate(batches):
            if place == 0:  # the source could be opened
                request.progress.start(len(shards), 0)
            mask = request.chosen_images(rows) if wanted is None else wanted(shard, rows)
            numbers = np.cumsum(pc.is_valid(rows["image"]).to_numpy()) - 1
            captions = captions_of(batch)
            places = np.flatnonzero(mask)
            for start in range(0, len(places), AT_ONCE):
                some = places[start : start + AT_ONCE]
                of_batch = numbers[some].tolist()
                table = told(rows.take(pa.array(some)), pa.array([captions[i] for i in of_batch], pa.string()))
                sources = [batch.parts.images[i] for i in of_batch]
                yield Images(shard=shard, table=table, sources=sources, threads=threads)
                request.progress.advance(len(some), False)
            request.progress.advance(0, True)


def check_verdict(verdict: str) -> Verdict:
    """Raises ``RecipeError`` for what is no verdict."""
    for known in VERDICTS:
        if verdict == known:
            return known
    raise RecipeError(f"--verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")
