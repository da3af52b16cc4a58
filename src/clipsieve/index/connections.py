"""The two ways to ClickHouse: the engine in this process (chDB), and a server over HTTP (clickhouse-connect)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from clipsieve.errors import IndexStoreError
from clipsieve.index.clickhouse import quoted

EXTRA = "pip install 'clipsieve[clickhouse]'"
FORMAT = "ArrowStream"
BINARY = "output_format_arrow_string_as_string = 0"
"""Thumbnails are bytes in columns that hold texts elsewhere: all come as bytes."""


EMPTY = {"data", "metadata", "status", "tmp"}
"""What chDB leaves in a folder before it holds a table."""


class InProcess:
    """ClickHouse in this process, its data in the folder ``path``. A process can hold one folder at a time."""

    def __init__(self, path: Path) -> None:
        try:
            import chdb
        except ImportError:
            raise IndexStoreError(f"chdb:// needs the ClickHouse engine: {EXTRA}") from None
        self._failure = chdb.ChdbError
        held = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
        if path.is_file() or (held and "store" not in held and not held <= EMPTY):
            raise IndexStoreError(f"{path} is not an index, but holds something else; give another path")
        try:
            path.mkdir(parents=True, exist_ok=True)
            connect: Any = chdb.connect  # untyped
            self._connection = connect(str(path))
        except (OSError, RuntimeError) as failure:
            raise IndexStoreError(f"cannot open {path} as a ClickHouse folder: {_why_not_opened(failure)}") from failure

    def run(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        with self._failing():
            self._connection.query(sql, params=_texts(values))

    def read(self, sql: str, values: Mapping[str, Any] | None = None) -> pa.Table:
        sql += f", {BINARY}" if " SETTINGS " in sql else f" SETTINGS {BINARY}"
        with self._failing():
            return pa.ipc.open_stream(self._connection.query(sql, FORMAT, params=_texts(values)).bytes()).read_all()

    def insert(self, table: str, rows: pa.Table) -> None:
        with self._failing(), self._connection.send_insert(f"INSERT INTO {table}", FORMAT) as insert:
            insert.append(_stream(rows))
            insert.finish()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (self._failure, RuntimeError) as failure:
            raise IndexStoreError(f"ClickHouse refuses: {_first_sentence(failure)}") from failure


class Server:
    """A ClickHouse server at ``host:port`` over HTTP, TLS on ports 443 and 8443."""

    def __init__(self, host: str, port: int, user: str, password: str) -> None:
        try:
            import clickhouse_connect
            from clickhouse_connect.driver import exceptions
        except ImportError:
            raise IndexStoreError(f"clickhouse:// needs clickhouse-connect: {EXTRA}") from None
        logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # what fails is raised as well
        self._failures = exceptions
        self._place = f"{host}:{port}"
        self._password = password
        with self._failing():
            self._client = clickhouse_connect.get_client(
                host=host, port=port, username=user, password=password, form_encode_query_params=True
            )

    def run(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        with self._failing():
            self._client.command(sql, dict(values or {}))

    def read(self, sql: str, values: Mapping[str, Any] | None = None) -> pa.Table:
        sql += f", {BINARY}" if " SETTINGS " in sql else f" SETTINGS {BINARY}"
        with self._failing():
            return pa.ipc.open_stream(self._client.raw_query(sql, dict(values or {}), fmt=FORMAT)).read_all()

    def insert(self, table: str, rows: pa.Table) -> None:
        with self._failing():
            self._client.raw_insert(table, rows.column_names, _stream(rows), fmt=FORMAT)

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except self._failures.ClickHouseError as failure:
            said = _first_sentence(failure)
            if "Code:" not in said:
                said = "no answer; check host and port, and that the server runs"
            if self._password:
                said = said.replace(self._password, "***")
            # Without the chain, whose texts may repeat what was sent.
            raise IndexStoreError(f"ClickHouse at {self._place}: {said}") from None


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return bytes(sink.getvalue())


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Values as chDB wants them bound: as ClickHouse's own texts, escaped."""
    return {name: _text(value) for name, value in (values or {}).items()}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(quoted(item) if isinstance(item, str) else repr(item) for item in value) + "]"
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
    return repr(value)


def _why_not_opened(failure: Exception) -> str:
    said = str(failure)
    if "already initialized with path" in said:
        return "this process has another one open; close that index first"
    if "EmbeddedServer: ." in said:
        return "another process has it open"
    return _first_sentence(failure)


def _first_sentence(failure: Exception) -> str:
    said = " ".join(str(failure).split())
    start = max(said.find("Code: "), 0)
    return said[start:].partition(" Stack trace")[0][:200]
