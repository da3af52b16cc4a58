"""From a finished run to an index: its kept images with their captions, thumbnails, scores and vectors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.api.progress import Progress, Silent
from clipsieve.api.rows import (
    bytes_of,
    captions_of,
    content_id,
    digest_of,
    placeholder_id,
    rows_of,
    table_of,
    thumbnail_of,
)
from clipsieve.api.runs import Run
from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Vectors
from clipsieve.core.fetch import ImageSource
from clipsieve.core.ledger import BASE_SCHEMA
from clipsieve.core.threads import cores
from clipsieve.errors import RunFolderError
from clipsieve.index import About, Approximate, Index
from clipsieve.index.store import COLUMNS

AT_ONCE = 128
"""Images whose bytes are in memory together."""

PUT = 2048
"""Rows stored together: about 32 MB with their thumbnails and vectors."""


@dataclass(kw_only=True)
class Indexed:
    """What indexing a run did to its images that were kept and have a vector; ``images`` is their number.

    Each was ``added``, ``updated``, found ``unchanged``, or ``repeated``: the same bytes and caption as one before it.
    ``without_thumbnail`` of them could not be read again. Kept images ``without_vector`` are not in the index.
    ``removed`` counts rows that went with ``prune``.
    """

    images: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    repeated: int = 0
    without_thumbnail: int = 0
    without_vector: int = 0
    removed: int = 0
    rows: int = 0
    approximate: Approximate | None = None


def index_run(
    run: Run | str | Path,
    to: str | Path,
    *,
    prune: bool = False,
    approximate: bool | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Indexed:
    """Puts the kept images of a finished run into the index at ``to``, which is made when it is not there.

    An image that is there already, with the same bytes and caption, is brought up to date; so the same call again
    changes nothing, and goes on where an interrupted one stopped. ``prune`` removes what an earlier run over the same
    source had put there and this one does not keep. ``approximate`` builds an index of that kind (True), drops it
    (False), or leaves it to the number of rows (None).

    Raises ``RunFolderError`` when the run is not finished, has no vectors or its source has changed, and
    ``IndexStoreError`` when the index cannot be written or holds vectors of another model.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    progress = progress or Silent()
    shards, about, batches = run.shards(), _about(run), run.batches()
    first = next(batches)  # opens the source before an index is made for nothing
    with Index.create(to, about, _scores(first[1].schema)) as index:
        with ThreadPoolExecutor(workers or cores()) as threads:
            writing = _Writing(index, _source(run), threads)
            progress.start(len(shards), 0)
            for shard, rows, batch in chain([first], batches):
                for images in writing.shard(rows, batch, run.vectors(shard)):
                    progress.advance(images, False)
                progress.advance(0, True)
            writing.flush()
        if prune:
            writing.prune()
        done = writing.done
        done.rows = len(index)
        done.approximate = _settle(index, approximate, done, progress)
        return done


def _about(run: Run) -> About:
    recipe = run.recipe
    fingerprint = run.executed["encoder"]
    if fingerprint is None:
        raise RunFolderError(f"{run.path} holds no image vectors: run its recipe with --vectors, into another --out")
    local = recipe.model != "demo" and Path(recipe.model).expanduser().is_dir()
    return About(
        model=str(Path(recipe.model).expanduser().resolve()) if local else recipe.model,
        revision=recipe.revision,
        fingerprint=fingerprint,
        dim=run.vectors(0).shape[1],
    )


def _source(run: Run) -> str:
    """What names the data set of a run: where it was read from, whatever its rules."""
    return ", ".join(path if "://" in path else os.path.abspath(path) for path in run.recipe.read.path)


def _scores(ledger: pa.Schema) -> list[pa.Field]:
    return [pa.field(f.name, f.type) for f in ledger if f.name not in BASE_SCHEMA.names]


def _settle(index: Index, asked: bool | None, done: Indexed, progress: Progress) -> Approximate | None:
    """Builds or drops the approximate index, as asked or as the number of rows says."""
    built = index.about.approximate
    if asked is False:
        index.exact()
        return None
    # Of one row there is no recall to measure. One that is there is kept up to date, however many rows there are.
    if done.rows < 2 or not (asked or built or done.rows > index.store.exact_up_to):
        return built
    if built and built.rows == done.rows and not (done.added or done.updated or done.removed):
        return built
    progress.say(f"building the approximate index over {done.rows:,} rows")
    return index.approximate()


class _Writing:
    """Rows on their way into an index: what is new is read, drawn small and stored, some images at a time."""

    def __init__(self, index: Index, source: str, threads: ThreadPoolExecutor) -> None:
        self.done = Indexed()
        self._store = index.store
        self._schema = index.store.schema()
        self._source = source
        self._threads = threads
        self._fresh = len(index) == 0
        self._seen: set[bytes] = set()  # about 90 bytes an image, whatever its size
        self._waiting: list[dict[str, Any]] = []

    def shard(self, ledger: pa.Table, batch: Batch, vectors: Vectors) -> Iterator[int]:
        """Writes a shard; gives the number of images that are through, as they are."""
        is_image = pc.is_valid(ledger["image"]).to_numpy()
        ledger, vectors = ledger.filter(pa.array(is_image)), vectors[is_image]
        kept = pc.equal(ledger["verdict"], "kept").to_numpy()
        usable = kept & ~np.isnan(vectors[:, 0])
        self.done.without_vector += int((kept & ~usable).sum())
        captions = captions_of(batch)
        places = np.flatnonzero(usable)
        for start in range(0, len(places), AT_ONCE):
            chosen = places[start : start + AT_ONCE]
            rows = rows_of(ledger.take(pa.array(chosen)), [captions[i] for i in chosen.tolist()])
            self._write(rows, [batch.parts.images[i] for i in chosen.tolist()], vectors[chosen])
            yield len(chosen)

    def _write(self, rows: list[dict[str, Any]], images: Sequence[ImageSource], vectors: Vectors) -> None:
        self.done.images += len(rows)
        data = list(self._threads.map(bytes_of, images))
        for row, image, read in zip(rows, images, data, strict=True):
            row["id"] = placeholder_id(row) if read is None else content_id(read, row["caption"], image.frame)
        known = {} if self._fresh else self._known(rows, data)
        todo = []
        for place, row in enumerate(rows):
            row["digest"] = digest_of(row, vectors[place])
            key = bytes.fromhex(row["id"])
            if key in self._seen:
                self.done.repeated += 1
                continue
            self._seen.add(key)
            digest, sources = known.get(row["id"], (None, ()))
            if digest == row["digest"] and self._source in sources:
                self.done.unchanged += 1
                continue
            self.done.added += digest is None
            self.done.updated += digest is not None
            row["sources"] = sorted({*sources, self._source})
            todo.append(place)
        drawn = self._threads.map(thumbnail_of, [images[i] for i in todo], [data[i] for i in todo])
        lost = [rows[i]["id"] for i in todo if data[i] is None and rows[i]["id"] in known]
        before = {old["id"]: old["thumbnail"] for old in self._find("id", lost, "thumbnail")}
        for place, small in zip(todo, drawn, strict=True):
            shown = small or before.get(rows[place]["id"])
            self.done.without_thumbnail += shown is None
            self._waiting.append({**rows[place], "thumbnail": shown, "vector": vectors[place]})
        if len(self._waiting) >= PUT:
            self.flush()

    def flush(self) -> None:
        """Stores the rows that wait."""
        if self._waiting:
            self._store.put(table_of(self._waiting, self._schema))
            self._waiting.clear()

    def prune(self) -> None:
        """Removes the rows that only this source had put there and that it no longer keeps."""
        gone: list[str] = []
        shared: list[str] = []
        for batch in self._store.scan(["id", "sources"], 65_536):
            for name, sources in zip(batch["id"].to_pylist(), batch["sources"].to_pylist(), strict=True):
                if self._source in sources and bytes.fromhex(name) not in self._seen:
                    (gone if sources == [self._source] else shared).append(name)
        for start in range(0, len(gone), PUT):
            self._store.delete(gone[start : start + PUT])
        for start in range(0, len(shared), PUT):
            rows = self._store.find("id", shared[start : start + PUT], self._schema.names)
            left = [[s for s in sources if s != self._source] for sources in rows["sources"].to_pylist()]
            place = rows.schema.get_field_index("sources")
            self._store.put(
                rows.set_column(place, rows.schema.field(place), pa.array(left, COLUMNS.field("sources").type))
            )
        self.done.removed = len(gone)

    def _known(
        self, rows: list[dict[str, Any]], data: Sequence[bytes | None]
    ) -> Mapping[str, tuple[str, Sequence[str]]]:
        """Digest and sources of the rows that are there.

        An image that cannot be read any more keeps the id that it has; one that now can loses its placeholder.
        """
        lost = {(row["reference"], row["caption"]): row for row, read in zip(rows, data, strict=True) if read is None}
        references = [reference for reference, _ in lost if reference is not None]
        for old in self._find("reference", references, "reference", "caption", "sources"):
            row = lost.get((old["reference"], old["caption"]))
            if row is not None and self._source in old["sources"]:
                row["id"] = old["id"]
        placeholders = {placeholder_id(row) for row, read in zip(rows, data, strict=True) if read is not None}
        found = self._find("id", [*(row["id"] for row in rows), *placeholders], "digest", "sources")
        if stale := [old["id"] for old in found if old["id"] in placeholders]:
            self._store.delete(stale)
        return {old["id"]: (old["digest"], old["sources"]) for old in found}

    def _find(self, column: str, values: Sequence[str], *columns: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._store.find(column, values, ["id", *columns]).to_pylist() if values else []
        return found
