"""The same rows in every store: LanceDB, the ClickHouse engine in this process, and a ClickHouse server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from clipsieve.index import About, Index
from clipsieve.index.places import open_store
from clipsieve.index.store import row_schema
from tests.fakes import ColourEncoder
from tests.index.served import PASSWORD, Served

DIM = 8
SCORES = [
    pa.field("clip_score", pa.float64()),
    pa.field("width", pa.float64()),
    pa.field("label", pa.string()),
    pa.field("pair_similarity", pa.list_(pa.float64())),
]
ABOUT = About(model="m", revision=None, fingerprint="fp32-0", dim=DIM)
COLOURS = About(model="colours", revision=None, fingerprint=ColourEncoder.fingerprint, dim=ColourEncoder.dim)

STORES = ["lancedb", "chdb", "http", "server"]
"""``http`` is the client for a server in front of chDB; ``server`` a real one, at ``CLICKHOUSE_URL``."""


def unit(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    vectors = np.asarray(values, dtype=np.float64)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def rows(vectors: npt.NDArray[np.float32], schema: pa.Schema, **columns: list[object]) -> pa.Table:
    """Rows with ids ``0000``, ``0001``, ...; columns that are not given are null."""
    count = len(vectors)
    given: dict[str, object] = {
        "id": [f"{i:04d}" for i in range(count)],
        "sources": [["a"]] * count,
        "digest": ["d"] * count,
        "pair_similarity": [[]] * count,
        "vector": list(vectors),
        **columns,
    }
    known = {field.name: given.get(field.name, [None] * count) for field in schema}
    return pa.table({name: pa.array(values, schema.field(name).type) for name, values in known.items()})


@pytest.fixture(scope="module")
def clickhouse_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one folder of chDB in this process."""
    return tmp_path_factory.mktemp("chdb") / "data"


@pytest.fixture(scope="module")
def served(clickhouse_folder: Path) -> Iterator[Served]:
    server = Served(str(clickhouse_folder))
    yield server
    server.close()


@pytest.fixture
def new_place(tmp_path: Path, clickhouse_folder: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """A way to a place for a new index in a store of a kind."""

    def place(kind: str) -> str:
        if kind == "lancedb":
            return str(tmp_path / "lance")
        if kind == "chdb":
            return f"chdb://{clickhouse_folder}"
        table = f"test_{uuid.uuid4().hex}"
        if kind == "http":
            server = request.getfixturevalue("served")
            return f"clickhouse://tester:{quote(PASSWORD, safe='')}@{server.place}/{table}.images"
        if url := os.environ.get("CLICKHOUSE_URL"):
            return f"{url.rstrip('/')}/{table}.images"
        return pytest.skip("no ClickHouse server: set CLICKHOUSE_URL=clickhouse://user:password@host:8123")

    return place


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, new_place: Callable[[str], str]) -> Iterator[str]:
    """A place for a new index, in each store in turn."""
    place = new_place(request.param)
    yield place
    if request.param != "lancedb":
        drop(place)


def drop(place: str) -> None:
    """Removes the ClickHouse database of an index."""
    store = open_store(place)
    store._connection.run(f"DROP DATABASE IF EXISTS {store._database} SYNC")  # type: ignore[attr-defined]
    store.close()


Fill = Callable[..., Index]


@pytest.fixture
def fill(place: str) -> Iterator[Fill]:
    """Makes the index at ``place`` from vectors and columns."""
    made: list[Index] = []

    def make(vectors: npt.NDArray[np.float32], **columns: list[object]) -> Index:
        index = Index.create(place, ABOUT, SCORES)
        made.append(index)
        index.store.put(rows(vectors, row_schema(SCORES, DIM), **columns))
        return index

    yield make
    for index in made:
        index.close()
