"""Search from the page: by text or by an image of the run, in the run's own vectors or in an index."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.api.labels import encoder_of
from clipsieve.api.runs import Run
from clipsieve.core.contracts import Encoder, Vectors
from clipsieve.errors import ClipsieveError, UsageError
from clipsieve.index import Index
from clipsieve.web.pictures import LARGE, Thumbnails
from clipsieve.web.queries import Numbers
from clipsieve.web.questions import Search
from clipsieve.web.state import View
from clipsieve.web.tiles import check_image, clean, tiles

BLOCK = 65_536
"""Vectors that are compared at once: 128 MB of 512 dimensions."""


class Searcher:
    """Finds images of a run, or of ``index``. Safe to use from several threads; one search at a time."""

    def __init__(self, view: View, thumbnails: Thumbnails | None, index: Index | None) -> None:
        self._view = view
        self._thumbnails = thumbnails
        self._index = index
        self._one = Lock()

    @cached_property
    def within(self) -> list[str]:
        """Where can be searched: the index where one was given, the run where it kept its vectors."""
        return [*(["index"] if self._index else []), *(["run"] if has_vectors(self._view.run) else [])]

    @property
    def loaded(self) -> bool:
        """Whether a text can be searched for at once, without loading a model first."""
        holders = [self, *([self._index] if self._index else [])]
        return any("encoder" in holder.__dict__ for holder in holders)

    @cached_property
    def encoder(self) -> Encoder:
        """The model that embedded the run. Raises ``ModelError`` or ``RunFolderError``."""
        return encoder_of(self._view.run)

    def __call__(self, asked: Search) -> dict[str, Any]:
        """The most similar images, best first. Raises ``UsageError`` for a question that cannot be asked."""
        if asked.within not in self.within:
            raise UsageError(f"there is no {asked.within} to search in: {self.sentence}")
        if (asked.text is None) == (asked.row is None):
            raise UsageError("give a text or an image to look for")
        if asked.text is not None and not asked.text.strip():
            raise UsageError("the query is empty; give a text to look for")
        if asked.row is not None:
            check_image(self._view, asked.row)
        with self._one:
            return self._in_run(asked) if asked.within == "run" else self._in_index(asked)

    @property
    def sentence(self) -> str:
        """How to make a run searchable."""
        return "run its recipe with --vectors into another --out, or give --index (clipsieve index RUN --to INDEX)"

    def _in_run(self, asked: Search) -> dict[str, Any]:
        if asked.text is not None:
            query = self.encoder.texts([asked.text])[0]
        else:
            assert asked.row is not None
            query = self._vector(asked.row)
        similarity = self._similarity(query)
        similarity[~self._view.past.is_image | np.isnan(similarity)] = -np.inf
        count = min(asked.limit, int(np.isfinite(similarity).sum()))
        best = np.argpartition(-similarity, count - 1)[:count] if count else np.zeros(0, dtype=np.int64)
        best = best[np.lexsort((best, -similarity[best]))]
        found = tiles(self._view, self._view.decided(asked), best.tolist())
        for tile, row in zip(found, best.tolist(), strict=True):
            tile["similarity"] = float(similarity[row])
        return {"images": found, "among": int(np.isfinite(similarity).sum())}

    @cached_property
    def _shards(self) -> list[tuple[int, int]]:
        """The number of each shard and its first row."""
        shards = self._view.ledger["shard"].to_numpy()
        numbers, starts = np.unique(shards, return_index=True)
        return list(zip(numbers.tolist(), starts.tolist(), strict=True))

    def _vector(self, row: int) -> Vectors:
        number, start = next((n, s) for n, s in reversed(self._shards) if s <= row)
        vector = np.array(self._view.run.vectors(number)[row - start])
        if np.isnan(vector).any():
            raise UsageError("this image has no vector: an earlier rule had dropped it, or it cannot be read")
        return vector

    def _similarity(self, query: Vectors) -> Numbers:
        """The cosine of every row to ``query``, block by block; NaN where there is no vector."""
        found = [block @ query for block in self._blocks()]
        return np.concatenate(found).astype(np.float64) if found else np.zeros(0)

    def _blocks(self) -> Iterator[Vectors]:
        for number, _ in self._shards:
            vectors = self._view.run.vectors(number)
            for start in range(0, len(vectors), BLOCK):
                yield vectors[start : start + BLOCK]

    def _in_index(self, asked: Search) -> dict[str, Any]:
        assert self._index is not None
        index = self._index
        if asked.text is not None:
            found = index.search(text=asked.text, k=asked.limit)
        elif "run" in self.within and self._view.run.executed["encoder"] == index.fingerprint:
            assert asked.row is not None
            found = index.nearest(self._vector(asked.row), k=asked.limit)
        else:
            found = index.search(image=self._seen(asked.row), k=asked.limit)
        return {"images": self._told(asked, found), "among": len(index)}

    def _seen(self, row: int | None) -> Any:
        """The pixels of an image of the run, for the index's model."""
        assert row is not None
        if self._thumbnails is None:
            raise UsageError("the source of this run cannot be read any more, and it kept no vectors to search by")
        picture = self._thumbnails.pictures.one(row, LARGE)
        if picture.thumbnail is None:
            raise UsageError(f"cannot search for this image: {picture.error}")
        return picture.thumbnail

    def _told(self, asked: Search, found: pa.Table) -> list[dict[str, Any]]:
        """What the index found: images of the run as their tiles, others as the index has them."""
        rows = self._rows_of(found)
        known = [row for row in rows if row is not None]
        own = dict(zip(known, tiles(self._view, self._view.decided(asked), known), strict=True))
        told = []
        for row, result in zip(rows, found.to_pylist(), strict=True):
            foreign = {
                "row": None,
                "name": clean(result["reference"] or f"{result['sample_id']}#{result['image']}", 300),
                "standing": None,
                "why": None,
                "was": None,
                "value": None,
                "caption": clean(result["caption"]),
                "thumbnail": None if result["thumbnail"] is None else base64.b64encode(result["thumbnail"]).decode(),
            }
            told.append({**(foreign if row is None else own[row]), "similarity": result["similarity"]})
        return told

    def _rows_of(self, found: pa.Table) -> list[int | None]:
        """The ledger row of each result that is an image of the run; of equal ones the first."""
        ledger = self._view.ledger
        keys = ("sample_id", "reference", "image")
        candidates = pc.or_(
            pc.is_in(ledger["sample_id"], value_set=pc.drop_null(found["sample_id"]).combine_chunks()),
            pc.is_in(ledger["reference"], value_set=pc.drop_null(found["reference"]).combine_chunks()),
        )
        rows = np.flatnonzero(pc.and_(candidates, pc.is_valid(ledger["image"])).to_numpy())
        told = ledger.select(list(keys)).take(pa.array(rows)).to_pylist()
        known = {tuple(one[key] for key in keys): row for one, row in zip(told[::-1], rows[::-1].tolist(), strict=True)}
        return [known.get(tuple(one[key] for key in keys)) for one in found.select(list(keys)).to_pylist()]


def has_vectors(run: Run) -> bool:
    """Whether the run kept the vectors of its images."""
    try:
        run.vectors(run.shards()[0].number)
    except ClipsieveError:
        return False
    return True
