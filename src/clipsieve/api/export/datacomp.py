"""DataComp's list of samples: a sorted NumPy array of dtype ``u8,u8``, the two halves of each 128-bit uid.

This is what the resharder of https://github.com/mlfoundations/datacomp takes as its ``--subset-file``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.api.added import ledger_part
from clipsieve.api.export.places import whole_file
from clipsieve.api.export.request import Exported, Request
from clipsieve.core.ledger import begins_sample
from clipsieve.errors import ColumnError, RecipeError
from clipsieve.report.words import plural
from clipsieve.runfolder import RunFolder
from clipsieve.writers.cells import parsed

SUFFIX = ".npy"

DTYPE = np.dtype("u8,u8")


def write(request: Request, path: Path) -> Exported:
    """One file with the uid of every chosen sample, each once."""
    request.progress.start(len(request.run.shards()), 0)
    parts = []
    for uids in _uids(request):
        parts.append(_pairs(uids, request))
        request.progress.advance(len(uids), True)
    found = np.concatenate(parts)
    request.check_some(len(found))
    unique = np.unique(found)  # compares the first half, then the second
    with whole_file(path) as file:
        np.save(file, unique)
    twice = len(found) - len(unique)
    notes = (f"{plural(twice, 'sample')} with the uid of another: each uid stands there once",) if twice else ()
    return Exported(path=path, rows=len(unique), notes=notes)


def _uids(request: Request) -> Iterator[pa.ChunkedArray]:
    """The uids of the chosen samples, shard by shard; the source is read only for a column of its own."""
    if request.uid is None:
        folder = RunFolder(request.run.path)
        for shard in request.run.shards():
            rows = ledger_part(folder, shard.number)
            yield rows["sample_id"].take(_first_rows(rows, request))
        return
    for _, rows, batch in request.run.batches():
        samples = rows["sample"].take(_first_rows(rows, request)).to_numpy()
        yield _column(batch.table.take(pa.array(batch.parts.sample_rows[samples])), request.uid)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of the source; of a WebDataset, whose tars DataComp is made of, also a field of the JSON member."""
    if name in table.column_names:
        return table[name]
    if "members" not in table.column_names:
        raise ColumnError(f"no column {name!r} in the source; it has {', '.join(table.column_names)}")
    found = []
    for members in table["members"].to_pylist():
        about = next((parsed(member["bytes"]) for member in members or () if member["name"].endswith(".json")), None)
        value = (about or {}).get(name)
        found.append(value if isinstance(value, str) else None)
    return pa.chunked_array([pa.array(found, pa.string())])


def _first_rows(rows: pa.Table, request: Request) -> pa.Array:
    """The first ledger row of each chosen sample."""
    return pa.array(np.flatnonzero(begins_sample(rows) & request.chosen(rows, "sample_verdict")))


def _pairs(uids: pa.ChunkedArray, request: Request) -> npt.NDArray[np.void]:
    texts = uids.cast(pa.string()) if pa.types.is_primitive(uids.type) else uids
    right = pc.fill_null(pc.match_substring_regex(texts, "^[0-9a-fA-F]{32}$"), False).to_numpy()
    if not right.all():
        wrong = texts[int(np.flatnonzero(~right)[0])].as_py()
        named = "no id" if wrong is None else f"the id {wrong[:64]!r}"
        raise RecipeError(
            f"datacomp takes uids of 32 hexadecimal digits, and a sample of {request.run.path} has {named}; "
            "name the column of the source that holds them with --uid COLUMN"
        )
    halves = np.frombuffer(bytes.fromhex("".join(texts.to_pylist())), dtype=">u8").reshape(-1, 2)
    pairs = np.empty(len(halves), dtype=DTYPE)
    pairs["f0"], pairs["f1"] = halves[:, 0], halves[:, 1]
    return pairs
