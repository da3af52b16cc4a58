"""Columns added to a finished run: parts in ``RUN/added/NAME/`` that go row for row with those of its ledger.

The ledger itself is never written again, so what a run decided stays what it was. Who reads a run sees an added
column in place of one of that name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.errors import RunFolderError
from clipsieve.runfolder import TEMPORARY, RunFolder, undamaged, write_table


def add_columns(folder: RunFolder, name: str, parts: Iterable[tuple[int, pa.Table]]) -> None:
    """Puts the columns ``name`` beside the ledger, in place of those of that name: a part for each of its shards.

    ``folder`` is held by this process. Whatever happens, its columns are all the old ones, all the new ones, or
    (when the process dies between two renames) none.
    """
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


def whole_ledger(folder: RunFolder, columns: Sequence[str] | None = None) -> pa.Table:
    """The ledger in input order, with the columns that were added to it; of all, or of ``columns`` those it has."""
    shards = committed(folder)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return pa.concat_tables(threads.map(lambda shard: ledger_part(folder, shard, columns), shards))


def committed(folder: RunFolder) -> list[int]:
    """The shards whose ledger is there, in input order. Raises ``RunFolderError`` when there is none."""
    if not (shards := sorted(folder.done("ledger"))):
        raise RunFolderError(f"{folder.path} holds no ledger: nothing has been committed")
    return shards


def ledger_part(folder: RunFolder, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The ledger of one shard, with the columns that were added to it; of all, or of ``columns`` those it has."""
    table = folder.part_table("ledger", shard, columns)
    for place in sorted((folder.path / "added").glob("[!.]*")):
        path = place / f"{shard:05d}.parquet"
        with undamaged(path, f"remove {place} and add its columns again"):
            added = pq.ParquetFile(path).read(columns, use_threads=False)
            for field, column in zip(added.schema, added.columns, strict=True):
                at = table.schema.get_field_index(field.name)
                table = table.append_column(field, column) if at < 0 else table.set_column(at, field, column)
    return table


def added_options(folder: RunFolder) -> dict[str, tuple[str, dict[str, Any]]]:
    """For each column that was added the name under which it was, and the options with which it was computed."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for place in sorted((folder.path / "added").glob("[!.]*")):
        path = place / "00000.parquet"
        with undamaged(path, f"remove {place} and add its columns again"):
            schema = pq.read_schema(path)
            about = json.loads(schema.metadata[place.name.encode()])
        options = {key: value for key, value in about.items() if key not in ("version", "images")}
        found |= dict.fromkeys(schema.names, (place.name, options))
    return found
