import base64
import io
import json
import resource
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clipsieve.core.contracts import Reader, SourceCounts
from clipsieve.core.layout import INTERLEAVED_SCHEMA, parts
from clipsieve.errors import ColumnError, SourceError
from clipsieve.readers import Columns, open_source

ReadAll = Callable[[Reader], tuple[pa.Table, dict[int, str]]]
Members = list[tuple[str, Any]]


def source(folder: Path, members: Members, name: str = "docs.tar", **said: Any) -> Reader:
    with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as tar:
        for member, content in members:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return open_source(f"{folder}/{name}", **said)


def packed(rows: pa.Table) -> dict[str, str]:
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows)
    return {"rows": base64.b64encode(zlib.compress(stream.getvalue())).decode()}


def brief(table: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    names = ["sample_id", "position", "modality", *columns]
    return [tuple(row.values()) for row in table.select(names).to_pylist()]


def test_documents_of_other_tools(tmp_path: Path, read_all: ReadAll, check_promises: Callable[[Reader], None]) -> None:
    members = [
        ("a.json", {"texts": ["one", None, "two"], "images": [None, "a.1.jpg", None], "url": "u", "n": 1}),
        ("a.1.jpg", b"A"),
        ("b%2Fc.json", {"texts": ["x", None], "images": ["0.png", "gone.png"], "n": None}),
        ("b%2Fc.0.png", b"B"),
        ("d.json", {"sample_id": 7, "texts": [], "images": []}),
    ]
    reader = source(tmp_path, members, shard_rows=1)
    table, errors = read_all(reader)
    assert brief(table, "text_content", "content_type", "url", "n") == [
        ("a", -1, "metadata", None, None, "u", 1),
        ("a", 0, "text", "one", "text/plain", None, None),
        ("a", 1, "image", None, "image/jpeg", None, None),
        ("a", 2, "text", "two", "text/plain", None, None),
        ("b/c", -1, "metadata", None, None, None, None),
        ("b/c", 0, "text", "x", "text/plain", None, None),
        ("b/c", 0, "image", None, "image/png", None, None),
        ("b/c", 1, "image", None, "image/png", None, None),
        ("7", -1, "metadata", None, None, None, None),
    ]
    assert errors == {}
    assert table.column("binary_content").to_pylist()[2] == b"A"
    assert json.loads(table.column("source_ref").to_pylist()[2])["member"] == "a.1.jpg"
    assert reader.count() == SourceCounts(samples=3, images=3)
    assert reader.describe() == f"{tmp_path}/docs.tar: 1 file, WebDataset, interleaved layout"
    check_promises(reader)
    with pytest.raises(ColumnError, match="interleaved rows have fixed column names"):
        source(tmp_path, members, columns=Columns(image="x"))


def test_pages_of_one_file_stay_in_the_tar(tmp_path: Path) -> None:
    members = [("k.json", {"texts": [None, None], "images": ["page 1", "page 2"]}), ("k.tiff", b"TIFF of two pages")]
    for name, lazy in (("docs.tar", True), ("docs.tar.gz", False)):
        reader = source(tmp_path, members, name)
        rows = reader.read(reader.shards()[0])
        images = parts(rows.table, reader.layout, rows.origins).images
        assert [image.frame for image in images] == [0, 1]
        assert [image.read() for image in images] == [b"TIFF of two pages"] * 2
        assert rows.table.column("binary_content").null_count == 2 * lazy
        assert images[0].reference == f"{tmp_path}/{name}::k.tiff"


def test_an_image_that_no_member_holds_fails_alone(tmp_path: Path) -> None:
    reader = source(tmp_path, [("k.json", {"texts": [None, "x"], "images": ["gone.jpg", None]})])
    table = reader.read(reader.shards()[0]).table
    assert brief(table, "materialize_error") == [
        ("k", 0, "image", "no member 'gone.jpg' in the tar"), ("k", 1, "text", None),
    ]  # fmt: skip


def test_rows_that_were_written_by_clipsieve_come_back_equal(tmp_path: Path, read_all: ReadAll) -> None:
    rows = pa.table(
        {
            "when": pa.array([1, 2, None, 4, 5], pa.timestamp("us")),
            "sample_id": ["doc/7"] * 5,
            "position": pa.array([-1, 3, 4, 9, 10], pa.int32()),
            "modality": ["metadata", "image", "text", "text", "image"],
            "content_type": ["application/json", "image/png", None, "text/html", "image/webp"],
            "text_content": ['{"kept": 1}', "alt text", "A red star.", None, None],
            "binary_content": pa.array([None, b"PNG", None, None, None], pa.large_binary()),
            "source_ref": [None, '{"path": "x"}', None, None, None],
            "materialize_error": [None, None, None, None, "missing"],
            "tags": pa.array([None, ["a"], [], None, ["b", None]], pa.list_(pa.string())),
        }
    )
    empty = pa.nulls(5, pa.string())
    stored = rows.set_column(1, "sample_id", empty).set_column(
        5, "text_content", pa.array(['{"kept": 1}', "alt text", None, None, None])
    )
    stored = stored.set_column(6, "binary_content", pa.nulls(5, pa.large_binary()))
    document = {
        "sample_id": "doc/7",
        "texts": [None, "A red star.", None, None],
        "images": ["doc%2F7.0.png", None, None, None],
        "when": "ignored",
        "clipsieve": packed(stored),
    }
    members: Members = [("doc%2F7.json", document), ("doc%2F7.0.png", b"PNG")]
    table, _ = read_all(source(tmp_path, members))
    assert table.equals(rows)
    assert {field.name: field.type for field in INTERLEAVED_SCHEMA}.items() <= {
        f.name: f.type for f in table.schema
    }.items()

    edited = dict(document, texts=document["texts"][:3], images=document["images"][:3])
    damaged = dict(document, clipsieve={"rows": "%%%"})
    members += [("e.json", edited), ("f.json", damaged), ("g.json", dict(document, sample_id="g"))]
    table, _ = read_all(source(tmp_path, members))
    assert brief(table.slice(5), "materialize_error") == [
        ("e", 0, "image", "its field clipsieve does not go with the lists texts and images; remove the field"),
        ("f", 0, "image", table.column("materialize_error")[6].as_py()),
        ("g", 0, "image", "no member 'doc%2F7.0.png' in the tar"),
    ]
    assert "its field clipsieve is damaged" in table.column("materialize_error")[6].as_py()


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("x.json", b'{"texts": [', "malformed JSON in x.json"),
        ("x.json", b'{"texts": ["a"]}', "no document in x.json: it needs the lists texts and images"),
        ("x.jpg", b"image", "no member x.json"),
        ("x.json", b'{"texts": ["\\ud800"], "images": []}', "surrogates not allowed"),
        ("x.json", b'{"texts": [], "images": [], "late": 1}', "column 'late' is new here"),
        ("x.json", b'{"texts": [], "images": [], "n": "one"}', "column 'n' holds \"one\", expected int64"),
    ],
)
def test_a_document_that_cannot_be_read_is_one_failed_image(
    tmp_path: Path, name: str, content: bytes, error: str, monkeypatch: pytest.MonkeyPatch,
    check_promises: Callable[[Reader], None],
) -> None:  # fmt: skip
    monkeypatch.setattr("clipsieve.readers.webdataset._EXAMPLES_OF_FILE", 1)
    good = {"texts": ["a"], "images": [None], "n": 1}
    reader = source(tmp_path, [("a.json", good), (name, content), ("z.json", good)])
    rows = reader.read(reader.shards()[0])
    failed = rows.table.slice(2, 1).to_pylist()[0]
    assert (failed["sample_id"], failed["modality"]) == ("x", "image")
    assert error in failed["materialize_error"]
    assert reader.count() == SourceCounts(samples=3, images=1)
    check_promises(reader)


def test_stored_rows_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    inflating = zlib.compressobj()
    bomb = b"".join(inflating.compress(bytes(2**20)) for _ in range(200)) + inflating.flush()
    names = ["sample_id", "modality", "text_content", "binary_content"]
    empty = pa.table({name: pa.nulls(2**20 + 1) for name in names})
    whole = zlib.compress(b"rows")
    stored = [{"rows": base64.b64encode(data).decode()} for data in (bomb, whole[:-2])] + [packed(empty)]
    reader = source(
        tmp_path,
        [(f"{n}.json", {"texts": ["a"], "images": [None], "clipsieve": rows}) for n, rows in enumerate(stored)],
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    table = reader.read(reader.shards()[0]).table

    assert table.column("materialize_error").to_pylist() == [
        "its field clipsieve holds more than 67,108,864 bytes; remove the field",
        "its field clipsieve is damaged (incomplete stream); remove the field",
        "its field clipsieve holds more than 1,048,576 rows; remove the field",
    ]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # kB; the first would be 200 MB


def test_equal_ids_in_a_row_are_an_error_and_in_two_tars_two_documents(tmp_path: Path) -> None:
    document = {"sample_id": "same", "texts": ["a"], "images": [None]}
    reader = source(tmp_path, [("a.json", document), ("b.json", document)])
    with pytest.raises(SourceError, match="two documents in a row have the sample_id 'same'; rename one"):
        reader.read(reader.shards()[0])
    for name in "12":
        source(tmp_path, [("same.json", document)], f"{name}.tar")
    assert len(open_source(f"{tmp_path}/[12].tar").shards()) == 2


def test_a_field_with_the_name_of_a_column_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="JSON field 'position' has the name of an interleaved column; rename it"):
        source(tmp_path, [("a.json", {"texts": ["a"], "images": [None], "position": 3})])
