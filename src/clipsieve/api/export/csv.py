"""The ledger as CSV, for spreadsheets and other tools: a line a row, all columns, nothing changed.

A null is nothing, an empty text ``""``, a NaN ``nan``; lists are JSON (``[0.31, NaN, null]``).
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc_csv

from clipsieve.api.added import ledger_part
from clipsieve.api.export.places import whole_file
from clipsieve.api.export.request import Exported, Request
from clipsieve.runfolder import RunFolder

SUFFIX = ".csv"


def write(request: Request, path: Path) -> Exported:
    """One file; shard by shard, so that it may be larger than memory."""
    shards, folder = request.run.shards(), RunFolder(request.run.path)
    rows = 0
    with whole_file(path) as file:
        request.progress.start(len(shards), 0)
        for place, shard in enumerate(shards):
            part = ledger_part(folder, shard.number)
            table = _flat(part.filter(pa.array(request.chosen(part))))
            pc_csv.write_csv(table, file, pc_csv.WriteOptions(include_header=place == 0))
            rows += table.num_rows
            request.progress.advance(table.num_rows, True)
        request.check_some(rows)
    return Exported(path=path, rows=rows)


def _flat(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            cells = [
                None if cell is None else json.dumps(cell, ensure_ascii=False) for cell in table[field.name].to_pylist()
            ]
            table = table.set_column(place, field.name, pa.array(cells, pa.string()))
    return table
