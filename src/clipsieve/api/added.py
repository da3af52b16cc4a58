"""Columns added to a finished run: parts in ``RUN/added/NAME/`` that go row for row with those of its ledger.

The ledger itself is never written again, so what a run decided stays what it was. Who reads a run sees an added
column in place of one of that name. An object store cannot rename a folder: there each attempt has one of its own,
``NAME~TOKEN/``, and the object ``NAME.current`` says which one counts.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.core import storage
from clipsieve.runfolder import TEMPORARY, RunFolder, atomic, read_table, undamaged, write_table

_CURRENT, _ATTEMPT = ".current", "~"


def add_columns(folder: RunFolder, name: str, parts: Iterable[tuple[int, pa.Table]]) -> None:
    """Puts the columns ``name`` beside the ledger, in place of those of that name: a part for each of its shards.

    ``folder`` is held by this process. Whatever happens, its columns are all the old ones, all the new ones, or
    (when the process dies between two renames) none.
    """
    if not storage.is_local(folder.path):
        _add_remotely(folder, name, parts)
        return
    place, fresh, old = (folder.path / "added" / f"{prefix}{name}" for prefix in ("", TEMPORARY, f"{TEMPORARY}old-"))
    try:
        for shard, table in parts:
            write_table(fresh / f"{shard:05d}.parquet", table)
        if place.exists():
            os.replace(place, old)
        try:
            os.replace(fresh, place)
        except OSError:
            if old.exists():
                os.replace(old, place)
            raise
    finally:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _add_remotely(folder: RunFolder, name: str, parts: Iterable[tuple[int, pa.Table]]) -> None:
    """The same in a store; also what earlier attempts left goes."""
    within, fresh = folder.path / "added", f"{name}{_ATTEMPT}{secrets.token_hex(4)}"
    for shard, table in parts:
        write_table(within / fresh / f"{shard:05d}.parquet", table)
    with atomic(within / f"{name}{_CURRENT}") as file:
        file.write(fresh.encode())
    for old in storage.names(within):
        if old.startswith(f"{name}{_ATTEMPT}") and old != fresh:
            storage.remove(within / old)


def _places(folder: RunFolder) -> Mapping[str, Path]:
    """Where the parts of the columns are, by the name under which these were added."""
    within = folder.path / "added"
    if storage.is_local(within):
        return {place.name: place for place in sorted(within.glob("[!.]*"))}
    added = sorted(name.removesuffix(_CURRENT) for name in storage.names(within) if name.endswith(_CURRENT))
    return {name: within / storage.read(within / f"{name}{_CURRENT}").decode() for name in added}


def whole_ledger(folder: RunFolder, columns: Sequence[str] | None = None) -> pa.Table:
    """The ledger in input order, with the columns that were added to it; of all, or of ``columns`` those it has."""
    shards, places = folder.committed(), _places(folder)
    with ThreadPoolExecutor(storage.threads(folder.path)) as threads:
        return pa.concat_tables(threads.map(lambda shard: _part(folder, shard, columns, places), shards))


def ledger_part(folder: RunFolder, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The ledger of one shard, with the columns that were added to it; of all, or of ``columns`` those it has."""
    return _part(folder, shard, columns, _places(folder))


def _part(folder: RunFolder, shard: int, columns: Sequence[str] | None, places: Mapping[str, Path]) -> pa.Table:
    table = folder.part_table("ledger", shard, columns)
    for place in places.values():
        path = place / f"{shard:05d}.parquet"
        with undamaged(path, f"remove {place} and add its columns again"):
            added = read_table(path, columns)
            for field, column in zip(added.schema, added.columns, strict=True):
                at = table.schema.get_field_index(field.name)
                table = table.append_column(field, column) if at < 0 else table.set_column(at, field, column)
    return table


def added_options(folder: RunFolder) -> dict[str, tuple[str, dict[str, Any]]]:
    """For each column that was added the name under which it was, and the options with which it was computed."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, place in _places(folder).items():
        path = place / "00000.parquet"
        with undamaged(path, f"remove {place} and add its columns again"), storage.opened(path) as file:
            schema = pq.read_schema(file)
            about = json.loads(schema.metadata[name.encode()])
        options = {key: value for key, value in about.items() if key not in ("version", "images")}
        found |= dict.fromkeys(schema.names, (name, options))
    return found
