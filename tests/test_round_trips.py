"""What is read and written comes back: every format to every other that can hold it, through the real readers."""

from __future__ import annotations

import datetime as dt
import io
import json
import tarfile
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipsieve.core.batch import Batch
from clipsieve.core.layout import INTERLEAVED_SCHEMA, LayoutKind
from clipsieve.readers import open_source
from clipsieve.writers import writer

SUFFIXES = {"csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet", "webdataset": ".tar"}


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2), grey).save(file, "PNG")
    return file.getvalue()


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def batch(data: bytes, format: str, layout: LayoutKind | None = None) -> Batch:
    """A small file, read: its only shard."""
    path = f"/round-trip{SUFFIXES[format]}"
    fsspec.filesystem("memory").pipe(path, data)
    source = open_source(f"memory:/{path}", layout=layout)
    [shard] = source.shards()
    return Batch.from_rows(source.read(shard), source.layout)


def converted(data: bytes, source: str, target: str, layout: LayoutKind | None = None) -> bytes:
    """A file of one format as a file of another."""
    found = batch(data, source, layout)
    file = io.BytesIO()
    writer(target, found.layout.kind).write(found, file, "00000")
    return file.getvalue()


CAPTIONS = pa.table(
    {
        "id": ["a", "b/c.d", "a"],
        "image": [{"bytes": png(1), "path": "1.png"}, {"bytes": png(2), "path": None}, {"bytes": b"?", "path": "x"}],
        "caption": ["a red star", 'a "blue" ring,\nspotted', None],
        "at": pa.array([dt.datetime(2024, 5, 1), None, None], pa.timestamp("us")),
        "tags": [["x", None], [], None],
        "score": pa.array([0.1, None, 1.5], pa.float32()),
    }
)  # fmt: skip
IN_JSON = [
    {"id": "a", "at": "2024-05-01 00:00:00.000000", "tags": ["x", None], "score": 0.1},
    {"id": "b/c.d", "at": None, "tags": [], "score": None},
    {"id": "a", "at": None, "tags": None, "score": 1.5},
]
IN_CSV = [
    {"id": "a", "at": "2024-05-01 00:00:00.000000", "tags": '["x", null]', "score": "0.1"},
    {"id": "b/c.d", "at": "", "tags": "[]", "score": ""},
    {"id": "a", "at": "", "tags": "", "score": "1.5"},
]

JSON_LINES = b"""\
{"image":"1.png","caption":"caf\\u00e9", "n": 1.0}
{"caption": null, "image": "2.png", "n": 1e3}
"""
CSV = b'image,caption,n\n1.png,"a ""b"", c",007\n2.png,,\n'
PAIRS = tar(
    {
        "part/0.1.jpg": png(1),
        "part/0.1.json": b'{ "caption": "a star", "n":1.0 }',
        "part/0.1.seg": b"\0\1",
        "part/0.2.jpg": png(2),
        "part/0.2.txt": "ein Kätzchen".encode(),
    }
)


@pytest.mark.parametrize(("format", "data"), [("jsonl", JSON_LINES), ("csv", CSV), ("webdataset", PAIRS)])
def test_a_format_written_as_itself_is_the_same_file(format, data):
    assert converted(data, format, format) == data


def test_parquet_written_as_parquet_is_the_same_table():
    data = converted(parquet(CAPTIONS), "parquet", "parquet")
    assert pq.read_table(io.BytesIO(data)).equals(CAPTIONS)


def passthrough(found: Batch, format: str) -> list[dict[str, Any]]:
    """The columns beside image and caption; those of a pair are in its JSON."""
    rows = found.table.to_pylist()
    if format == "webdataset":
        rows = [json.loads(m["bytes"]) for row in rows for m in row["members"] if m["name"].endswith(".json")]
    return [{name: row[name] for name in ("id", "at", "tags", "score")} for row in rows]


@pytest.mark.parametrize("format", ["csv", "jsonl", "webdataset"])
def test_captions_survive_every_format(format):
    found = batch(converted(parquet(CAPTIONS), "parquet", format), format)
    assert list(found.bytes) == [png(1), png(2), b"?"]
    assert list(zip(found.parts.text_samples, found.parts.texts, strict=True)) == [
        (0, "a red star"),
        (1, 'a "blue" ring,\nspotted'),
    ]
    assert passthrough(found, format) == (IN_CSV if format == "csv" else IN_JSON)
    keys = ["a", "b%2Fc%2Ed", "a~2"] if format == "webdataset" else ["a", "b/c.d", "a"]
    assert found.parts.sample_ids == keys


@pytest.mark.parametrize("format", ["jsonl", "parquet", "webdataset"])
def test_lists_survive_every_format_that_holds_them(format):
    lists = pa.table({"images": [[png(1), png(2)], [png(3)], []], "text": ["x", None, "z"], "n": [1, 2, 3]})
    found = batch(converted(parquet(lists), "parquet", format), format, layout="lists")
    assert list(found.bytes) == [png(1), png(2), png(3)]
    assert found.parts.image_samples.tolist() == [0, 0, 1]
    assert list(zip(found.parts.text_samples, found.parts.texts, strict=True)) == [(0, "x"), (2, "z")]


def test_pairs_come_back_from_parquet_as_the_same_tar():
    assert converted(converted(PAIRS, "webdataset", "parquet"), "parquet", "webdataset") == PAIRS


DOCUMENT_SCHEMA = pa.schema(
    [
        *INTERLEAVED_SCHEMA,
        ("n", pa.int32()),
        ("at", pa.timestamp("ns", tz="UTC")),
        ("nested", pa.list_(pa.struct([("a", pa.float32()), ("b", pa.binary())]))),
    ]
)
_NESTED = st.lists(
    st.none() | st.fixed_dictionaries({"a": st.none() | st.just(0.5), "b": st.none() | st.binary(max_size=3)})
)
_ROW = st.fixed_dictionaries(
    {
        "modality": st.sampled_from(["text", "image", "table", None]),
        "content_type": st.none() | st.text(max_size=3),
        "text_content": st.none() | st.text(max_size=5),
        "binary_content": st.none() | st.binary(max_size=5),
        "materialize_error": st.text(max_size=3),
        "n": st.none() | st.integers(-9, 9),
        "at": st.none() | st.integers(0, 2**40),
        "nested": st.none() | _NESTED,
    }
)


@st.composite
def documents(draw: st.DrawFn) -> pa.Table:
    """Rows of documents with different ids, metadata first, of any content."""
    rows: list[dict[str, Any]] = []
    for sample_id in draw(
        st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=4, unique_by=lambda i: i or "")
    ):
        content = draw(st.lists(_ROW, min_size=1, max_size=4))
        metadata = [draw(_ROW) | {"modality": "metadata"}] if draw(st.booleans()) else []
        rows += [row | {"sample_id": sample_id, "position": -1} for row in metadata]
        rows += [row | {"sample_id": sample_id, "position": position} for position, row in enumerate(content)]
    return pa.Table.from_pylist(rows, schema=DOCUMENT_SCHEMA)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(documents())
def test_documents_come_back_from_webdataset_as_the_same_table(table):
    data = converted(parquet(table), "parquet", "webdataset")
    assert batch(data, "webdataset").table.equals(table)
    assert pq.read_table(io.BytesIO(converted(data, "webdataset", "parquet"))).equals(table)
