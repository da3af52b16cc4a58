"""An index: images of a run with their captions, thumbnails, scores and vectors, found by text, image or vector.

What is asked and what is answered is the same over every store: a store only proposes candidates, and their
similarities are computed here, as cosines in float64 from the stored vectors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve import encoders
from clipsieve.core.batch import Batch
from clipsieve.core.rules import Rule
from clipsieve.errors import ImageError, IndexStoreError, ModelError, UsageError
from clipsieve.index.about import About, Approximate
from clipsieve.index.filters import checked
from clipsieve.index.places import open_store
from clipsieve.index.ranking import ranked, vectors_of
from clipsieve.index.store import COLUMNS, Store, row_schema, scores_of

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder, Vectors

SPARE = 16
"""So many more candidates than results are asked for, so that equals at the end of the list can be told apart."""

OVERSAMPLING = 4
"""An approximate index, whose vectors are coarser, is asked for so many times more candidates."""

SLACK = 1e-5
"""Two cosines further apart than this are in the right order also by a store's float32 sums: they are within 1e-6 of
the true ones for 512 to 4096 dimensions."""

QUERIES = 100
"""Stored vectors that are searched for to measure the recall of an approximate index."""

RECALL_AT = 10


class Index:
    """Images that can be searched. Open with ``Index.open``; use as a context manager, or ``close`` it."""

    def __init__(self, store: Store, about: About, *, model: str | Encoder | None = None, device: str = "auto") -> None:
        self.store = store
        self.about = about
        self._model = model
        self._device = device
        _check_columns(store, about)

    @classmethod
    def open(cls, place: str | Path, *, model: str | Encoder | None = None, device: str = "auto") -> Index:
        """Opens the index at a path (LanceDB), ``clickhouse://user:password@host:8123/database.table`` or
        ``chdb:///path``.

        The model that made it is loaded when a text or an image is searched for; ``model`` says where it is when its
        name has changed. Raises ``IndexStoreError`` when there is no index.
        """
        with _opened(place) as store:
            told = store.about()
            if told is None:
                raise IndexStoreError(f"no index at {store.title}; make it with: clipsieve index RUN --to INDEX")
            return cls(store, About.parse(told, store.title), model=model, device=device)

    @classmethod
    def create(cls, place: str | Path, about: About, scores: list[pa.Field]) -> Index:
        """Opens the index at ``place`` or makes it, for vectors of the model ``about`` and with columns for ``scores``.

        Raises ``IndexStoreError`` when it holds vectors of another model, or a score of another type.
        """
        with _opened(place, create=True) as store:
            store.about()  # or says that something else is there
            store.hold()
            told = store.about()
            if told is None:
                store.create(row_schema(scores, about.dim), about.text())
                return cls(store, about)
            index = cls(store, About.parse(told, store.title))
            index._expect(about)
            index._add(scores)
            return index

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the database."""
        self.store.close()

    def __len__(self) -> int:
        """Number of rows."""
        return self.store.count()

    @property
    def fingerprint(self) -> str:
        """That of the encoder that made the vectors."""
        return self.about.fingerprint

    @property
    def scores(self) -> list[pa.Field]:
        """The scores that rows have, and rules can name."""
        return scores_of(self.store.schema())

    def search(self, *, text: str | None = None, image: Any = None, k: int = 20, where: str | None = None) -> pa.Table:
        """The ``k`` images most similar to a text, to an image (path, bytes, PIL image, ``(h, w, 3)`` uint8 RGB), or to
        both: the mean direction of their unit vectors. See ``nearest`` for the rest.

        Raises ``UsageError`` for an empty query, ``ImageError`` for an image that cannot be read, and ``ModelError``
        when the model is not the one that made the index.
        """
        if text is None and image is None:
            raise UsageError("give a text, an image, or both to look for")
        if text is not None and not text.strip():
            raise UsageError("the query is empty; give a text to look for")
        if text is not None and text.encode(errors="ignore") != text.encode(errors="replace"):
            raise UsageError("the query is not text in UTF-8")
        self._checked(k, where)  # before a model is loaded for nothing
        found = ([] if text is None else [self.encoder.texts([text])[0]]) + (
            [] if image is None else [self._see(image)]
        )
        return self.nearest(np.mean(found, axis=0, dtype=np.float64).astype(np.float32), k=k, where=where)

    def nearest(self, vector: npt.ArrayLike, *, k: int = 20, where: str | None = None, exact: bool = False) -> pa.Table:
        """The ``k`` rows whose vectors have the highest cosine to ``vector`` ``(dim,)``, among those that pass
        ``where``: rules over the scores such as ``clip_score >= 0.3 and width >= 512``.

        Columns: ``id``, ``similarity`` (float64, the true cosine), then all others but ``vector`` and ``digest``.
        Highest first, equals by id; the same over every store. The search is exact with ``where`` or when ``exact``
        asks for it; else an approximate index, if one has been built, names the candidates. Raises ``RuleError`` for a
        rule that is none or names no column, ``UsageError`` for a ``k`` below 1 or a vector of another length.
        """
        rules = self._checked(k, where)
        query = np.asarray(vector, dtype=np.float32)
        if query.shape != (self.about.dim,) or not np.isfinite(query).all() or not query.any():
            raise UsageError(f"a query vector has {self.about.dim} finite numbers, not all 0")
        exact = exact or bool(rules) or not self.about.approximate
        return self._rows(*self._best(query, k, rules, len(self), exact=exact))

    def vectors(self, rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """All rows, at most ``rows`` at a time: ``id``, ``reference`` and ``vector`` ``(dim,)`` float32."""
        yield from self.store.scan(["id", "reference", "vector"], rows)

    def approximate(self) -> Approximate:
        """Builds the approximate index over all rows, measures its recall, and searches by it from now on."""
        self.store.approximate(self.about.dim)
        built = Approximate(rows=len(self), recall=0.0, queries=0)
        self.about = replace(self.about, approximate=built)
        recall, queries = self._recall()
        self.about = replace(self.about, approximate=replace(built, recall=round(recall, 4), queries=queries))
        self.store.describe(self.about.text())
        assert self.about.approximate is not None
        return self.about.approximate

    def exact(self) -> None:
        """Drops the approximate index: every search looks at all rows from now on."""
        if self.about.approximate:
            self.about = replace(self.about, approximate=None)
            self.store.describe(self.about.text())
        self.store.exact()

    @cached_property
    def encoder(self) -> Encoder:
        """The model that made the index. Raises ``ModelError`` when it cannot be loaded, or is another one."""
        if self._model is None or isinstance(self._model, str):
            name, revision = (self._model, None) if self._model else (self.about.model, self.about.revision)
            precision = encoders.precision_of(self.fingerprint)
            loaded: Encoder = encoders.load(name, revision=revision, device=self._device, precision=precision)
        else:
            name, loaded = "the given model", self._model
        if loaded.fingerprint != self.fingerprint:
            raise ModelError(
                f"{self.store.title} was made with {self.about.model} ({self.fingerprint}), "
                f"{name} is another model ({loaded.fingerprint}); search with the one that made it"
            )
        return loaded

    def _see(self, image: Any) -> Vectors:
        batch = Batch.from_lists([str(image) if isinstance(image, os.PathLike) else image], encoder=self.encoder)
        seen: Vectors = batch.image_vectors[0]
        if batch.errors:
            name = str(image) if isinstance(image, (str, os.PathLike)) else "the image"
            raise ImageError(f"cannot search for {name}: {batch.errors[0]}")
        return seen

    def _checked(self, k: int, where: str | None) -> tuple[Rule, ...]:
        if not isinstance(k, int) or k < 1:
            raise UsageError(f"k is how many images to show, at least 1, not {k}")
        return checked(where, self.store.schema())

    def _expect(self, about: About) -> None:
        if (about.fingerprint, about.dim) != (self.fingerprint, self.about.dim):
            raise IndexStoreError(
                f"{self.store.title} holds vectors of {self.about.model} ({self.fingerprint}, {self.about.dim} "
                f"dimensions), the run those of {about.model} ({about.fingerprint}, {about.dim}); give another --to"
            )

    def _add(self, scores: list[pa.Field]) -> None:
        known = {field.name: field.type for field in self.scores}
        for score in scores:
            if known.get(score.name, score.type) != score.type:
                raise IndexStoreError(
                    f"{score.name} is {known[score.name]} in {self.store.title} and {score.type} in the run; "
                    "give another --to"
                )
        if new := [score for score in scores if score.name not in known]:
            self.store.add_columns(new)

    def _best(
        self, query: Vectors, k: int, rules: Sequence[Rule], rows: int, *, exact: bool
    ) -> tuple[list[str], npt.NDArray[np.float64]]:
        """The ids and cosines of the ``k`` best of ``rows`` rows, highest first, equals by id."""
        wanted = min(k + SPARE if exact else k * OVERSAMPLING + SPARE, rows)
        while True:
            ids, similarity = ranked(self.store.nearest(query, max(wanted, 1), rules, exact=exact), query)
            if exact:
                # What the store left out is no nearer than the last that it gave, but for rounding.
                enough = wanted == rows or len(ids) < wanted or similarity[k - 1] - similarity[-1] > SLACK
            else:
                enough = len(ids) >= min(k, rows)
            if enough:
                return ids[:k], similarity[:k]
            # An approximate index that finds too little, such as rows that are gone, gives way to the exact search.
            wanted, exact = min(wanted * 4, rows), True

    def _rows(self, ids: list[str], similarity: npt.NDArray[np.float64]) -> pa.Table:
        shown = [name for name in self.store.schema().names if name not in ("digest", "vector")]
        found = self.store.find("id", ids, shown)
        place = pc.index_in(pa.array(ids, pa.string()), found["id"].combine_chunks())
        there = pc.is_valid(place)  # a row may have gone in between
        # Stores differ in what they say may be null.
        found = found.cast(pa.schema([field.with_nullable(True) for field in found.schema]))
        rows = found.take(place.filter(there))
        return rows.add_column(1, "similarity", pa.array(similarity).filter(there))

    def _recall(self) -> tuple[float, int]:
        """The mean share of the exact 10 best that the approximate search finds, and the number of queries."""
        ids = sorted(name for batch in self.store.scan(["id"], 65_536) for name in batch["id"].to_pylist())
        if len(ids) < 2:
            return 1.0, 0
        chosen = np.random.default_rng(0).choice(len(ids), min(QUERIES, len(ids)), replace=False)
        queries = self.store.find("id", [ids[i] for i in chosen.tolist()], ["id", "vector"])
        shares = []
        for name, query in zip(queries["id"].to_pylist(), vectors_of(queries), strict=True):
            best, near = (self._others(name, query, len(ids), exact=exact) for exact in (True, False))
            # By similarity, not by id: of equal images any is as good.
            shares.append((near >= best[-1] - SLACK).mean())
        return float(np.mean(shares)), len(shares)

    def _others(self, name: str, query: Vectors, rows: int, *, exact: bool) -> npt.NDArray[np.float64]:
        """The cosines of the best rows but the one called ``name``."""
        ids, similarity = self._best(query, RECALL_AT + 1, (), rows, exact=exact)
        return similarity[[other != name for other in ids]][:RECALL_AT]


@contextmanager
def _opened(place: str | Path, *, create: bool = False) -> Iterator[Store]:
    """The store at ``place``, closed again when it cannot be used."""
    store = open_store(place, create=create)
    try:
        yield store
    except BaseException:
        store.close()
        raise


def _check_columns(store: Store, about: About) -> None:
    schema = store.schema()
    lacking = [name for name in (*COLUMNS.names, "vector") if name not in schema.names]
    if lacking:
        raise IndexStoreError(
            f"{store.title} lacks the column {lacking[0]!r}: it is no index, or damaged; make it again"
        )
    size = getattr(schema.field("vector").type, "list_size", about.dim)
    if size != about.dim:
        raise IndexStoreError(f"{store.title} is damaged: its vectors have {size} dimensions, not {about.dim}")
