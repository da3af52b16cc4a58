"""From what a user calls an index, a path or a URL, to its store."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from clipsieve.errors import UsageError
from clipsieve.index.clickhouse import ClickHouseStore
from clipsieve.index.store import Store

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

FORMS = "a path, clickhouse://user:password@host:8123/database.table or chdb:///path"


def open_store(place: str | Path) -> Store:
    """The store at ``place``, which may hold no index yet. Raises ``UsageError`` for a URL that is none, and
    ``IndexStoreError`` when the database cannot be reached."""
    scheme, separator, rest = str(place).partition("://")
    if not separator:
        from clipsieve.index.lancedb import LanceStore

        return LanceStore(Path(place))
    if scheme == "chdb":
        return _in_process(rest)
    if scheme == "clickhouse":
        return _server(str(place))
    raise UsageError(f"{scheme}:// is no kind of index; give {FORMS}")


def _in_process(path: str) -> Store:
    from clipsieve.index.connections import InProcess

    if not path or "?" in path:  # chDB would read settings behind it
        raise UsageError(f"chdb://{path} names no folder; give chdb:///path, without a question mark")
    return ClickHouseStore(InProcess(Path(path)), f"chdb://{path}", "clipsieve", "images")


def _server(url: str) -> Store:
    from clipsieve.index.connections import Server

    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or 8123
    except ValueError:
        host, port = None, 0
    user = unquote(parts.username or "default")
    title = f"clickhouse://{user}@{host}:{port}{parts.path}"
    names = parts.path.strip("/").split(".")
    if not host or not names[0] or len(names) > 2 or parts.query or parts.fragment:
        # The URL itself is not repeated: it may hold a password.
        raise UsageError("a ClickHouse URL reads clickhouse://user:password@host:8123/database.table")
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a database or table: letters, digits and _ make one")
    database, table = names if len(names) == 2 else ("default", names[0])
    return ClickHouseStore(Server(host, port, user, unquote(parts.password or "")), title, database, table)
