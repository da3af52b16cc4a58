"""An index in LanceDB: a folder, no server."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import reduce
from operator import and_, eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Any

import pyarrow as pa

from clipsieve.core.contracts import Vectors
from clipsieve.core.lock import Lock, locked
from clipsieve.core.rules import Rule
from clipsieve.errors import ClipsieveError, IndexStoreError

TABLE = "images"
LOCK = ".lock"
"""Held by the one process that writes: LanceDB lets two insert the same new row."""

ABOUT = "clipsieve"
"""Key of what is told of the index, in the metadata of the column ``vector``: a table's own cannot be changed."""

PARTITION = 1024
"""Rows a partition of the approximate index. Over 200,000 clustered vectors, a tenth of such partitions held all 10
nearest; of LanceDB's usual ones, of 4096 rows, two fifths held 9.9."""

PROBED = 0.1
"""Share of the partitions that a query looks into, but never fewer than ``PROBED_AT_LEAST``, LanceDB's default."""

PROBED_AT_LEAST = 20

_OPERATORS = {">=": ge, ">": gt, "<=": le, "<": lt, "==": eq, "!=": ne}


class LanceStore:
    """A ``Store`` in a LanceDB folder."""

    exact_up_to = 500_000  # 0.3 s a query on two cores, half of a million rows in benchmarks/search.py

    def __init__(self, path: Path) -> None:
        self.title = str(path)
        self._path = path
        self._opened: Any = None
        self._lock: Lock | None = None

    def about(self) -> str | None:
        table = self._path / f"{TABLE}.lance"
        if not any((table / "_versions").glob("*")):  # none, or one whose making was interrupted
            if self._path.is_file() or (
                self._path.is_dir() and any(path not in (table, self._path / LOCK) for path in self._path.iterdir())
            ):
                raise IndexStoreError(f"{self.title} is not an index, but holds something else; give another path")
            return None
        told: bytes = (self.schema().field("vector").metadata or {}).get(ABOUT.encode(), b"")
        return told.decode()

    def schema(self) -> pa.Schema:
        with self._reading():
            return self._table.schema

    def create(self, schema: pa.Schema, about: str) -> None:
        place = schema.get_field_index("vector")
        schema = schema.set(place, schema.field(place).with_metadata({ABOUT: about}))
        with self._writing():
            database = self._connect()
            self._path.mkdir(parents=True, exist_ok=True)
            self._opened = database.create_table(TABLE, schema=schema)

    def describe(self, about: str) -> None:
        with self._writing():
            self._table.update_field_metadata({"path": "vector", "metadata": {ABOUT: about}})

    def add_columns(self, fields: Sequence[pa.Field]) -> None:
        with self._writing():
            self._table.add_columns(pa.schema(fields))

    def put(self, rows: pa.Table) -> None:
        rows = rows.select(self.schema().names)
        with self._writing():
            self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def delete(self, ids: Sequence[str]) -> None:
        from lancedb.expr import col

        with self._writing():
            self._table.delete(col("id").isin(list(ids)))

    def count(self) -> int:
        with self._reading():
            return int(self._table.count_rows())

    def find(self, column: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
        from lancedb.expr import col

        with self._reading():
            return self._table.search().where(col(column).isin(list(values))).select(list(columns)).to_arrow()

    def scan(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        with self._reading():
            yield from self._table.search().select(list(columns)).to_batches(rows)

    def nearest(self, vector: Vectors, count: int, where: Sequence[Rule], *, exact: bool) -> pa.Table:
        with self._reading():
            query = self._table.search(vector).distance_type("cosine").limit(count)
            # `_distance` is named, since LanceDB warns that it will not come by itself for ever.
            query = query.select(["id", "vector", "_distance"])
            query = query.bypass_vector_index() if exact else query.nprobes(self._probes())
            if where:
                query = query.where(_expression(where), prefilter=True)
            return query.to_arrow().select(["id", "vector"])

    def approximate(self, dim: int) -> None:
        from lancedb.index import BTree, IvfSq

        with self._writing():
            # Built in seconds where a graph takes minutes; the cosines of its 8-bit vectors only choose candidates.
            config = IvfSq(distance_type="cosine", num_partitions=self._partitions())
            self._table.create_index("vector", config=config, name="approximate", replace=True)
            self._table.create_index("id", config=BTree(), name="ids", replace=True)  # what is found is read by id

    def exact(self) -> None:
        with self._writing():
            for index in self._table.list_indices():
                self._table.drop_index(index.name)

    def hold(self) -> None:
        import_lancedb()  # before anything is made
        with self._writing():
            self._path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = locked(self._path / LOCK)
            except BlockingIOError:
                raise IndexStoreError(f"{self.title} is being written by another process; wait for it") from None

    def close(self) -> None:
        self._opened = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _table(self) -> Any:
        if self._opened is None:
            self._opened = self._connect().open_table(TABLE)
        return self._opened

    def _connect(self) -> Any:
        # An open index sees what another process has put there since.
        return import_lancedb().connect(self._path, read_consistency_interval=timedelta(0))

    def _partitions(self) -> int:
        return max(1, self.count() // PARTITION)

    def _probes(self) -> int:
        return max(math.ceil(PROBED * self._partitions()), PROBED_AT_LEAST)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with _failing_as(f"the index {self.title} cannot be read"):
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _failing_as(f"the index {self.title} cannot be written"):
            yield


def import_lancedb() -> Any:
    """The library. Raises ``IndexStoreError`` when it is not installed."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # its warnings, straight to the terminal, are about its own affairs
    try:
        import lancedb
    except ImportError:
        raise IndexStoreError("an index in a folder needs LanceDB: pip install 'clipsieve[search]'") from None
    return lancedb


@contextmanager
def _failing_as(what: str) -> Iterator[None]:
    try:
        yield
    except (ClipsieveError, GeneratorExit):
        raise
    except Exception as failure:  # LanceDB raises most built-in exceptions, with reports of several lines
        raise IndexStoreError(f"{what}: {' '.join(str(failure).split())[:200]}") from failure


def _expression(rules: Sequence[Rule]) -> Any:
    """The rules as a typed expression: names and values stay apart, no text is put together."""
    from lancedb.expr import col, lit

    tests = [_OPERATORS[test.op](col(rule.name), lit(test.bound)) for rule in rules for test in rule.tests]
    members = [col(rule.name).isin(list(rule.members)) for rule in rules if rule.members]
    return reduce(and_, [*tests, *members])
