"""From what a user calls an index, a path or a URL, to its store."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from clipsieve.errors import IndexStoreError, UsageError
from clipsieve.index.clickhouse import ClickHouseStore
from clipsieve.index.store import Store

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

FORMS = "a path, clickhouse://user:password@host:8123/database.table or chdb:///path"


def open_store(place: str | Path, *, create: bool = False) -> Store:
    """The store at ``place``, which may hold no index yet; with ``create`` there may be nothing.

    Raises ``UsageError`` for a URL that is none, and ``IndexStoreError`` when the database cannot be reached.
    """
    scheme, separator, rest = str(place).partition("://")
    if not separator:
        if _SCHEME.match(str(place)):
            # The text itself is not repeated: it may hold a password.
            raise UsageError(f"a URL has two slashes behind its scheme; give {FORMS}")
        from clipsieve.index.lancedb import LanceStore

        return LanceStore(Path(place))
    if scheme == "chdb":
        return _in_process(rest, create)
    if scheme == "clickhouse":
        return _server(str(place))
    if scheme.lower() in ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "http", "https"):
        raise UsageError(f"an index is on this machine or in a database, not at {scheme}://; give {FORMS}")
    raise UsageError(f"{scheme}:// is not an index; give {FORMS}")


def _in_process(path: str, create: bool) -> Store:
    from clipsieve.index.connections import InProcess

    if not path or "?" in path:  # chDB would read settings behind it
        raise UsageError(f"chdb://{path} names no folder; give chdb:///path, without a question mark")
    if not create and not Path(path).exists():
        raise IndexStoreError(f"no index at chdb://{path}; make it with: clipsieve index RUN --to INDEX")
    return ClickHouseStore(InProcess(Path(path)), f"chdb://{path}", "clipsieve", "images")


def _server(url: str) -> Store:
    from clipsieve.index.connections import Server

    malformed = UsageError("a ClickHouse URL reads clickhouse://user:password@host:8123/database.table")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 8123
    except ValueError:  # a bracket in a password is written %5B
        raise malformed from None
    user = unquote(parts.username or "default")
    title = f"clickhouse://{user}@{host}:{port}{parts.path}"
    names = parts.path.strip("/").split(".")
    if not host or not names[0] or len(names) > 2 or parts.query or parts.fragment:
        # The URL itself is not repeated: it may hold a password.
        raise malformed
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not a name of a database or table: use letters, digits and _")
    database, table = names if len(names) == 2 else ("default", names[0])
    return ClickHouseStore(Server(host, port, user, unquote(parts.password or "")), title, database, table)
