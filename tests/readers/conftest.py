"""What the readers' tests share: reading a source through its shards, and checking what every reader promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import pyarrow as pa
import pytest

from clipsieve.core.contracts import LINE, Reader, SourceCounts
from clipsieve.core.layout import parts
from clipsieve.core.spread import Spread


def _read_all(reader: Reader) -> tuple[pa.Table, dict[int, str]]:
    """All visible columns through all shards, and the errors by row of the whole."""
    tables, errors, row = [], {}, 0
    for shard in reader.shards():
        rows = reader.read(shard)
        tables.append(rows.table)
        errors |= {row + number: error for number, error in rows.errors.items()}
        row += rows.table.num_rows
    table = pa.concat_tables(tables) if tables else pa.table({})
    return table.drop_columns([LINE] if LINE in table.column_names else []), errors


def _check_promises(elsewhere: Spread, reader: Reader) -> None:
    """Shards are numbered, repeatable in any order, and hold what ``count`` counts, whoever looks at the files."""
    shards = reader.shards()
    assert [shard.number for shard in shards] == list(range(len(shards)))
    first = [reader.read(shard) for shard in shards]
    for shard in reversed(shards):
        again = reader.read(shard)
        assert again.table.equals(first[shard.number].table)
        assert again.errors == first[shard.number].errors
    found = [parts(rows.table, reader.layout, rows.origins, rows.errors) for rows in first]
    assert reader.count() == SourceCounts(
        samples=sum(len(part.sample_ids) for part in found), images=sum(len(part.images) for part in found)
    )
    assert reader.shards(elsewhere) == shards
    assert reader.count(elsewhere) == reader.count()
    assert all(rows.table.num_rows for rows in first)


@pytest.fixture
def read_all() -> Callable[[Reader], tuple[pa.Table, dict[int, str]]]:
    return _read_all


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Spread]:
    """Another process, in which text has other hashes."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        yield process.map


@pytest.fixture
def check_promises(elsewhere: Spread) -> Callable[[Reader], None]:
    return partial(_check_promises, elsewhere)
