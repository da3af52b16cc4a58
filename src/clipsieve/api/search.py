"""From a finished run to an index: its kept images with their captions, thumbnails, scores and vectors."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.api.progress import Progress, Silent
from clipsieve.api.runs import Run
from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Vectors
from clipsieve.core.decode import decode
from clipsieve.core.fetch import ImageSource
from clipsieve.core.ledger import BASE_SCHEMA
from clipsieve.core.thumbnail import thumbnail_jpeg
from clipsieve.errors import ImageError, RunFolderError
from clipsieve.index import About, Approximate, Index
from clipsieve.index.store import COLUMNS

AT_ONCE = 128
"""Images whose bytes are in memory together."""

PUT = 2048
"""Rows stored together: about 32 MB with their thumbnails and vectors."""

CAPTION = 1000
"""Characters of a caption that are stored; a document's paragraph can be a page."""


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
        with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
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
    wanted = done.rows > index.store.exact_up_to if asked is None else asked
    built = index.about.approximate
    if not wanted:
        if asked is False:
            index.exact()
        return index.about.approximate
    if built and not (done.added or done.updated or done.removed):
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
        captions = _captions(batch)
        places = np.flatnonzero(usable)
        for start in range(0, len(places), AT_ONCE):
            chosen = places[start : start + AT_ONCE]
            rows = _rows(ledger.take(pa.array(chosen)), [captions[i] for i in chosen.tolist()])
            self._write(rows, [batch.parts.images[i] for i in chosen.tolist()], vectors[chosen])
            yield len(chosen)

    def _write(self, rows: list[dict[str, Any]], images: Sequence[ImageSource], vectors: Vectors) -> None:
        self.done.images += len(rows)
        data = list(self._threads.map(_bytes, images))
        for row, read in zip(rows, data, strict=True):
            row["id"] = _placeholder(row) if read is None else _id(read, row["caption"])
        known = {} if self._fresh else self._known(rows, data)
        todo = []
        for place, row in enumerate(rows):
            row["digest"] = _digest(row, vectors[place])
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
        drawn = self._threads.map(_thumbnail, [images[i] for i in todo], [data[i] for i in todo])
        for place, small in zip(todo, drawn, strict=True):
            self.done.without_thumbnail += small is None
            self._waiting.append({**rows[place], "thumbnail": small, "vector": vectors[place]})
        if len(self._waiting) >= PUT:
            self.flush()

    def flush(self) -> None:
        """Stores the rows that wait."""
        if self._waiting:
            self._store.put(_table(self._waiting, self._schema))
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
        placeholders = {_placeholder(row) for row, read in zip(rows, data, strict=True) if read is not None}
        found = self._find("id", [*(row["id"] for row in rows), *placeholders], "digest", "sources")
        if stale := [old["id"] for old in found if old["id"] in placeholders]:
            self._store.delete(stale)
        return {old["id"]: (old["digest"], old["sources"]) for old in found}

    def _find(self, column: str, values: Sequence[str], *columns: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._store.find(column, values, ["id", *columns]).to_pylist() if values else []
        return found


def _rows(ledger: pa.Table, captions: Sequence[str | None]) -> list[dict[str, Any]]:
    """The rows of an index for some images, without what is made from their bytes."""
    dropped = [name for name in BASE_SCHEMA.names if name not in ("image", "sample_id", "reference")]
    rows: list[dict[str, Any]] = ledger.drop_columns(dropped).to_pylist()
    for row, caption in zip(rows, captions, strict=True):
        # A search cannot tell "not computed" from "cannot be scored": both pass no rule.
        row |= {name: _without_nan(value) for name, value in row.items()}
        # Not every store has null lists.
        row |= {f.name: [] for f in ledger.schema if pa.types.is_list(f.type) and row[f.name] is None}
        row["caption"] = None if caption is None else caption[:CAPTION]
    return rows


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _captions(batch: Batch) -> list[str | None]:
    """For each image the first text of its sample; in documents the text that stands next before it, or else after."""
    parts = batch.parts
    if batch.layout.kind != "interleaved":
        return _texts_at(batch, np.searchsorted(parts.text_samples, parts.image_samples))
    rows = zip(batch.table["modality"].to_pylist(), batch.table["text_content"].to_pylist(), strict=True)
    spoken = [row for row, (kind, text) in enumerate(rows) if kind == "text" and text and text.strip()]
    text_rows = np.array(spoken, dtype=np.int64)  # those of parts.texts, in their order
    before = np.searchsorted(text_rows, parts.image_rows) - 1
    own = before >= 0
    own[own] = parts.text_samples[before[own]] == parts.image_samples[own]
    return _texts_at(batch, np.where(own, before, before + 1))


def _texts_at(batch: Batch, places: npt.NDArray[np.int64]) -> list[str | None]:
    """The texts at ``places``, None where the text there is of another sample."""
    parts = batch.parts
    pairs = zip(places.tolist(), parts.image_samples.tolist(), strict=True)
    return [parts.texts[i] if i < len(parts.texts) and parts.text_samples[i] == sample else None for i, sample in pairs]


def _bytes(image: ImageSource) -> bytes | None:
    try:
        return image.read()
    except ImageError:
        return None


def _thumbnail(image: ImageSource, data: bytes | None) -> bytes | None:
    try:
        return None if data is None else thumbnail_jpeg(decode(data, frame=image.frame))
    except ImageError:
        return None


def _placeholder(row: Mapping[str, Any]) -> str:
    """The id of an image that cannot be read: of its reference, in place of its bytes."""
    return _id((row["reference"] or "").encode(), row["caption"])


def _id(content: bytes, caption: str | None) -> str:
    """Of equal images with equal captions the same, in any run: 128 bits of SHA-256, in hexadecimal."""
    whole = hashlib.sha256(hashlib.sha256(content).digest())
    whole.update((caption or "").encode())
    return whole.hexdigest()[:32]


def _digest(row: Mapping[str, Any], vector: npt.NDArray[np.float32]) -> str:
    """Differs between any two states of a row, its sources apart."""
    known = sorted((name, value) for name, value in row.items() if name != "id" and value is not None)
    return hashlib.sha256(repr(known).encode() + vector.tobytes()).hexdigest()[:32]


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    vectors = np.stack([row["vector"] for row in rows])
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        if name == "vector"
        else pa.array([row.get(name) for row in rows], schema.field(name).type)
        for name in schema.names
    ]
    return pa.table(columns, names=schema.names)
