"""An index in ClickHouse, on a server or in this process: the same SQL for both.

No text of a user's is ever part of the SQL: names are columns of the table, values are bound as parameters. The
table's definition is shown in ``docs/search.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from clipsieve.core.contracts import Vectors
from clipsieve.core.rules import Rule
from clipsieve.errors import IndexStoreError
from clipsieve.index.store import COLUMNS

ABOUT = "clipsieve "
"""What the comment of one of our tables begins with; the rest is what is told of the index."""

GRANULE = 128
"""Rows that are read to find one: with vectors and thumbnails about 1 MB. ClickHouse's usual 8192 would be 80 MB."""

FOUND_AT_ONCE = 50_000
"""Characters of values that one query asks for: a server takes parameters of up to 128 KiB."""

_TYPES = {
    pa.string(): "String", pa.binary(): "String", pa.float64(): "Float64", pa.float32(): "Float32", pa.bool_(): "Bool",
    **{getattr(pa, f"{sign}int{bits}")(): f"{'U' if sign else ''}Int{bits}"
       for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


class Connection(Protocol):
    """A way to one ClickHouse. ``values`` are bound to the ``{name:Type}`` of ``sql``: texts, numbers, lists of them.

    Every method raises ``IndexStoreError``, which never shows a password.
    """

    def run(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        """Runs a statement without a result."""
        ...

    def read(self, sql: str, values: Mapping[str, Any] | None = None) -> pa.Table:
        """The result of a query; texts come as binary."""
        ...

    def insert(self, table: str, rows: pa.Table) -> None:
        """Inserts rows as one block: all of them, or none."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class ClickHouseStore:
    """A ``Store`` in the table ``table`` of the database ``database``, both plain names."""

    exact_up_to = 1_000_000  # 1 s a query on two cores, benchmarks/search.py; HNSW is slow to build

    def __init__(self, connection: Connection, title: str, database: str, table: str) -> None:
        self.title = title
        self._connection = connection
        self._place = {"database": database, "table": table}
        self._table = f"`{database}`.`{table}`"
        self._database = f"`{database}`"
        self._schema: pa.Schema | None = None

    def about(self) -> str | None:
        found = self._connection.read(
            "SELECT comment FROM system.tables WHERE database = {database:String} AND name = {table:String}",
            self._place,
        )["comment"].to_pylist()
        if not found:
            return None
        comment = found[0].decode()
        return comment.removeprefix(ABOUT) if comment.startswith(ABOUT) else ""

    def schema(self) -> pa.Schema:
        if self._schema is None:
            found = self._connection.read(f"SELECT * FROM {self._table} LIMIT 0").schema
            known = {field.name: field.type for field in COLUMNS}
            self._schema = pa.schema([(f.name, known.get(f.name, _with_texts(f.type))) for f in found])
        return self._schema

    def create(self, schema: pa.Schema, about: str) -> None:
        columns = [f"{_named(field.name)} {_type(field.type, field.nullable)}" for field in schema]
        self._connection.run(f"CREATE DATABASE IF NOT EXISTS {self._database}")
        # A row that is put again replaces the older one with its id: reads say FINAL, merges forget the older one.
        self._connection.run(
            f"CREATE TABLE {self._table} ({', '.join(columns)}, "
            "version UInt64 MATERIALIZED toUnixTimestamp64Micro(now64(6)), "
            f"CONSTRAINT dim CHECK length(vector) = {schema.field('vector').type.list_size}) "
            f"ENGINE = ReplacingMergeTree(version) ORDER BY id SETTINGS index_granularity = {GRANULE} "
            f"COMMENT {quoted(ABOUT + about)}"
        )

    def describe(self, about: str) -> None:
        self._connection.run(f"ALTER TABLE {self._table} MODIFY COMMENT {quoted(ABOUT + about)}")

    def add_columns(self, fields: Sequence[pa.Field]) -> None:
        for field in fields:
            self._connection.run(
                f"ALTER TABLE {self._table} ADD COLUMN IF NOT EXISTS {_named(field.name)} {_type(field.type, True)}"
            )
        self._schema = None

    def put(self, rows: pa.Table) -> None:
        self._connection.insert(self._table, rows.select(self.schema().names))

    def delete(self, ids: Sequence[str]) -> None:
        for some in _pieces(ids):
            self._connection.run(f"DELETE FROM {self._table} WHERE id IN {{ids:Array(String)}}", {"ids": some})

    def count(self) -> int:
        return int(self._connection.read(f"SELECT count() AS n FROM {self._table} FINAL")["n"][0].as_py())

    def find(self, column: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
        sql = f"{self._select(columns)} WHERE {_named(column)} IN {{values:Array(String)}}"
        return pa.concat_tables([self._read(sql, {"values": some}) for some in _pieces(values)])

    def scan(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        # Page by page along the primary key, so that neither side holds the whole table.
        last = ""
        while True:
            chosen = list(dict.fromkeys(["id", *columns]))
            page = self._read(
                f"{self._select(chosen)} WHERE id > {{last:String}} ORDER BY id LIMIT {rows}", {"last": last}
            )
            if page.num_rows == 0:
                return
            yield from page.select(list(columns)).combine_chunks().to_batches()
            last = page["id"][-1].as_py()

    def nearest(self, vector: Vectors, count: int, where: Sequence[Rule], *, exact: bool) -> pa.Table:
        condition, values = _condition(where)
        values["query"] = vector.tolist()
        asked = count
        while True:
            # Without FINAL, which would merge whole rows and keep ClickHouse from filtering before it reads vectors.
            sql = (
                f"SELECT id, version FROM {self._table} WHERE {condition} "
                f"ORDER BY cosineDistance(vector, {{query:Array(Float32)}}) LIMIT {asked}"
            )
            if exact:  # or the approximate index would name its nearest first, and the filter leave few of them
                sql += " SETTINGS use_skip_indexes = 0"
            versions = self._read(sql, values)
            rows = self._current(versions)
            if rows.num_rows >= count or versions.num_rows < asked:
                return rows
            asked *= 2  # older versions of rows, until they are merged away, have taken places

    def _current(self, versions: pa.Table) -> pa.Table:
        """``id`` and ``vector`` of those rows (``id``, ``version``) that no newer ones have replaced."""
        asked = set(zip(versions["id"].to_pylist(), versions["version"].to_pylist(), strict=True))
        found = self.find("id", [name for name, _ in asked], ["id", "version", "vector"])
        pairs = zip(found["id"].to_pylist(), found["version"].to_pylist(), strict=True)
        return found.filter(pa.array([pair in asked for pair in pairs], pa.bool_())).select(["id", "vector"])

    def approximate(self, dim: int) -> None:
        self._connection.run(f"OPTIMIZE TABLE {self._table} FINAL")
        self._connection.run(
            f"ALTER TABLE {self._table} ADD INDEX IF NOT EXISTS approximate vector "
            f"TYPE vector_similarity('hnsw', 'cosineDistance', {dim})"
        )
        self._connection.run(f"ALTER TABLE {self._table} MATERIALIZE INDEX approximate SETTINGS mutations_sync = 2")

    def exact(self) -> None:
        self._connection.run(f"ALTER TABLE {self._table} DROP INDEX IF EXISTS approximate SETTINGS mutations_sync = 2")

    def hold(self) -> None:
        """Nothing to hold: a folder of chDB has one process, and of rows with one id a server keeps the last."""

    def close(self) -> None:
        self._connection.close()

    def _select(self, columns: Sequence[str]) -> str:
        return f"SELECT {', '.join(map(_named, columns))} FROM {self._table} FINAL"

    def _read(self, sql: str, values: Mapping[str, Any]) -> pa.Table:
        table = self._connection.read(sql, values)
        known = {field.name: field for field in self.schema()}
        return table.cast(pa.schema([known.get(field.name, field) for field in table.schema]))


def quoted(text: str) -> str:
    """``text`` as a string literal, and as an item of an array that is bound as text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _named(column: str) -> str:
    return "`" + column.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _type(type: pa.DataType, nullable: bool) -> str:
    if pa.types.is_fixed_size_list(type) or pa.types.is_list(type):
        return f"Array({_type(type.value_type, type.value_type not in (pa.float32(), pa.string()))})"
    if pa.types.is_struct(type):
        return f"Tuple({', '.join(f'{_named(field.name)} {_type(field.type, True)}' for field in type)})"
    if type not in _TYPES:
        raise IndexStoreError(f"a column of type {type} cannot be stored in ClickHouse")
    return f"Nullable({_TYPES[type]})" if nullable else _TYPES[type]


def _with_texts(type: pa.DataType) -> pa.DataType:
    """A type as ClickHouse gives it back, with its texts, which come as binary."""
    if pa.types.is_list(type):
        return pa.list_(_with_texts(type.value_type))
    if pa.types.is_struct(type):
        return pa.struct([(field.name, _with_texts(field.type)) for field in type])
    return pa.string() if pa.types.is_binary(type) else type


def _condition(rules: Sequence[Rule]) -> tuple[str, dict[str, Any]]:
    """The rules as a condition and the values to bind to it."""
    parts: list[str] = []
    values: dict[str, Any] = {}
    for rule in rules:
        for op, bound in rule.tests:
            name = f"v{len(values)}"
            parts.append(f"{_named(rule.name)} {op} {{{name}:{'String' if isinstance(bound, str) else 'Float64'}}}")
            values[name] = bound
        if rule.members:
            name = f"v{len(values)}"
            parts.append(f"{_named(rule.name)} IN {{{name}:Array(String)}}")
            values[name] = list(rule.members)
    return " AND ".join(parts) or "1", values


def _pieces(values: Sequence[str]) -> Iterator[list[str]]:
    """``values`` in lists that a query may be given each; at least one, which may be empty."""
    piece: list[str] = []
    size = 0
    for value in values:
        if piece and size + len(value) > FOUND_AT_ONCE:
            yield piece
            piece, size = [], 0
        piece.append(value)
        size += len(value) + 4
    yield piece
