"""Where the survivors go: a folder or one file, beside others' files, with or without their images' bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pytest

import clipsieve
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.errors import OutputError, RecipeError
from tests.fakes import image_bytes


@pytest.fixture
def captions(tmp_path: Path) -> str:
    """Two files that make two shards, of which rows 1 and 3 are sharp."""
    for number in range(2):
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        for sharp in (False, True):
            (folder / f"{number}{sharp:d}.png").write_bytes(image_bytes("red", sharp=sharp))
        rows = [{"image": f"{number}{sharp:d}.png", "caption": f'row "{number}", {sharp}'} for sharp in (0, 1)]
        pq.write_table(pa.Table.from_pylist(rows * 600), folder / f"{number}.parquet")
    return str(tmp_path / "raw/*.parquet")


def rows_of(path: Path) -> list[dict[str, Any]]:
    readers: dict[str, Any] = {
        ".parquet": pq.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".jsonl": pyarrow.json.read_json,
    }
    found: list[dict[str, Any]] = readers[path.suffix](path).to_pylist()
    return found


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_path_that_ends_like_a_file_is_one_file(captions: str, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"kept.{suffix}"
    options: dict[str, Any] = {"read": captions, "keep": "blur >= 50", "out": tmp_path / "run"}
    run = clipsieve.run(**options, write=f"{suffix}:{path}")
    assert run.output == path
    assert len(run.shards()) > 1
    expected = [f'row "{number}", 1' for number in range(2) for _ in range(600)]
    assert [row["caption"] for row in rows_of(path)] == expected
    clipsieve.run(**options, write=f"{suffix}:{path}")  # again, with the file there: nothing is left to do
    path.unlink()
    clipsieve.run(**options, write=f"{suffix}:{path}")
    assert len(rows_of(path)) == 1200


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_one_file_of_nothing_is_a_file_all_the_same(captions: str, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"kept.{suffix}"
    clipsieve.run(read=captions, keep="blur >= 1e9", write=f"{suffix}:{path}", out=tmp_path / "run")
    assert path.exists()
    if suffix == "parquet":
        assert pq.read_table(path).num_rows == 0


def test_a_file_that_is_there_is_not_replaced(captions: str, tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_text("mine")
    with pytest.raises(OutputError, match="already exists; remove it or choose another"):
        clipsieve.run(read=captions, keep="blur >= 50", write=f"jsonl:{path}", out=tmp_path / "run")
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        ({"webdataset": "kept.tar"}, "a webdataset is a folder of tars; give a folder, such as kept/"),
        ({"jsonl": "kept.jsonl", "prefix": "a-"}, "kept.jsonl is one file; give a folder"),
        ({"jsonl": "kept/", "prefix": "../a-"}, "prefix .* is not of letters, digits"),
        ({"jsonl": "kept/", "prefix": "a"}, "with one of - _ . at its end"),
        ({"jsonl": "kept/", "prefix": "20240101-"}, "prefix '20240101-' reads like a shard's number"),
        ({"jsonl": "kept/", "prefix": "a_20240101.b-"}, "prefix 'a_20240101.b-' reads like a shard's number"),
        ({"jsonl": "kept.jsonl.gz"}, "kept.jsonl.gz reads like one file of another kind; one file ends in .jsonl"),
        ({"parquet": "kept.csv"}, "kept.csv reads like one file of another kind; one file ends in .parquet"),
        ({"parquet": "kept/", "embed": True}, "write.embed is for documents; captions samples keep their images"),
    ],
)
def test_a_write_that_cannot_be_is_refused(
    captions: str, tmp_path: Path, write: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the paths would be, were one not refused
    with pytest.raises(RecipeError, match=message):
        clipsieve.run(read=captions, keep="blur >= 50", write=write, out=tmp_path / "run")


def test_a_path_that_ends_in_a_slash_is_a_folder(captions: str, tmp_path: Path) -> None:
    clipsieve.run(read=captions, keep="blur >= 50", write=f"parquet:{tmp_path / 'kept.parquet'}/", out=tmp_path / "run")
    assert (tmp_path / "kept.parquet").is_dir()


def test_runs_with_different_prefixes_share_a_folder(captions: str, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    for prefix, keep in (("sharp-", "blur >= 50"), ("flat-", "blur < 50")):
        write = {"jsonl": str(folder), "prefix": prefix}
        clipsieve.run(read=captions, keep=keep, write=write, out=tmp_path / prefix)
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"sharp", "flat"}
    assert sum(len(path.read_text().splitlines()) for path in folder.iterdir()) == 2400
    write = {"jsonl": str(folder), "prefix": "flat-"}
    with pytest.raises(OutputError, match="is not empty"):
        clipsieve.run(read=captions, keep="blur >= 1", write=write, out=tmp_path / "third")


def test_what_a_dead_attempt_wrote_of_a_shard_goes_when_the_shard_is_done_again(captions: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"read": captions, "keep": "blur >= 50", "out": tmp_path / "run"}
    options["write"] = {"jsonl": str(tmp_path / "kept"), "samples_per_shard": 300}
    clipsieve.run(**options)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    (tmp_path / "run" / "ledger" / "00001.parquet").unlink()
    (tmp_path / "kept" / "00001-0007.jsonl").write_text("{}")  # it had decided otherwise, and written more
    clipsieve.run(**options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == whole


def test_documents_are_written_with_their_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes("red"))
    rows = [
        {"sample_id": "d", "position": 0, "modality": "image", "source_ref": '{"path": "a.png"}'},
        {"sample_id": "d", "position": 1, "modality": "image", "source_ref": '{"path": "gone.png"}'},
        {"sample_id": "d", "position": 2, "modality": "text", "text_content": "words"},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=INTERLEAVED_SCHEMA), tmp_path / "docs.parquet")
    write = {"parquet": str(tmp_path / "kept"), "embed": True}
    clipsieve.run(read=str(tmp_path / "docs.parquet"), write=write, on_error="keep", out=tmp_path / "run")
    written = pq.read_table(tmp_path / "kept")
    assert written["binary_content"].to_pylist() == [image_bytes("red"), None, None]
    assert written["materialize_error"].to_pylist() == [None, "missing: no such file", None]
    assert written["source_ref"].to_pylist() == [row.get("source_ref") for row in rows]


@pytest.mark.parametrize("write", [{"parquet": "kept", "embed": True}, {"webdataset": "kept"}])
def test_a_file_that_is_no_image_is_never_copied(
    tmp_path: Path, write: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("password")
    rows = [{"sample_id": "a", "position": 0, "modality": "image", "source_ref": f'{{"path": "{secret}"}}'}]
    pq.write_table(pa.Table.from_pylist(rows, schema=INTERLEAVED_SCHEMA), "docs.parquet")
    clipsieve.run(read="docs.parquet", write=write, on_error="keep", out="run")
    (written,) = (tmp_path / "kept").iterdir()
    assert b"password" not in written.read_bytes()


@pytest.mark.parametrize("on_error", ["drop", "drop-sample", "keep", "stop"])
def test_an_image_in_an_invalid_row_goes_alone_whatever_on_error_says(tmp_path: Path, on_error: str) -> None:
    rows = [
        {"sample_id": "a", "position": 0, "modality": "image", "binary_content": image_bytes("red")},
        {"sample_id": "a", "position": -2, "modality": "image", "binary_content": image_bytes("red")},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=INTERLEAVED_SCHEMA), tmp_path / "docs.parquet")
    read = {"path": str(tmp_path / "docs.parquet"), "invalid_rows": "drop"}
    run = clipsieve.run(read=read, write=f"parquet:{tmp_path / 'kept'}", on_error=on_error, out=tmp_path / "run")
    assert sorted(run.ledger["verdict"].to_pylist()) == ["failed", "kept"]
    assert pq.read_table(tmp_path / "kept").num_rows == 1


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_of_documents_some_columns_are_read_in_types_of_ones_own(tmp_path: Path, format: str) -> None:
    row = {"sample_id": "a", "position": 0, "modality": "text", "text_content": "x", "url": "u", "score": 1, "rest": 2}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "docs.parquet")
    source = tmp_path / "docs.parquet"
    if format == "webdataset":
        clipsieve.run(read=str(source), write=f"webdataset:{tmp_path / 'tars'}", out=tmp_path / "first")
        source = tmp_path / "tars"
    read = {"path": str(source), "fields": ["url", "score"], "types": {"score": "float64", "more": "string"}}
    clipsieve.run(read=read, write=f"parquet:{tmp_path / 'kept'}", out=tmp_path / "run")
    written = pq.read_table(tmp_path / "kept")
    assert {"url", "score", "more"} == {*written.column_names} - {*INTERLEAVED_SCHEMA.names}
    assert written.select(["url", "score", "more"]).to_pylist() == [{"url": "u", "score": 1.0, "more": None}]
    assert written.schema.field("score").type == pa.float64()


def test_shard_bytes_and_rows_say_how_large_a_file_grows(tmp_path: Path) -> None:
    rows = [
        {"sample_id": f"{number}", "position": 0, "modality": "text", "text_content": f"{number:01000}"}
        for number in range(100)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "docs.parquet", use_dictionary=False)
    read = {"path": str(tmp_path / "docs.parquet"), "shard_bytes": 10_000}
    run = clipsieve.run(read=read, write=f"parquet:{tmp_path / 'kept'}", out=tmp_path / "run")
    assert len(run.shards()) == len(list((tmp_path / "kept").iterdir())) > 8
    (tmp_path / "captions.jsonl").write_text("\n".join('{"image": "a.png", "text": "a"}' for _ in range(1_100)))
    for rows, shards in ((50, 22), (2_000, 1)):
        read = {"path": str(tmp_path / "captions.jsonl"), "shard_rows": rows}
        assert len(clipsieve.run(read=read, out=tmp_path / f"run-{rows}").shards()) == shards


def test_documents_of_nothing_but_invalid_rows_go(tmp_path: Path) -> None:
    rows = [
        {"sample_id": "a", "position": -1, "modality": "metadata"},
        {"sample_id": "b", "position": -2, "modality": "text", "text_content": "before"},
        {"sample_id": "c", "position": 0, "modality": "text", "text_content": "words"},
        {"sample_id": "c", "position": -1, "modality": "image", "binary_content": image_bytes("red")},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=INTERLEAVED_SCHEMA), tmp_path / "docs.parquet")
    read = {"path": str(tmp_path / "docs.parquet"), "invalid_rows": "drop"}
    run = clipsieve.run(read=read, write=f"parquet:{tmp_path / 'kept'}", out=tmp_path / "run")
    assert run.ledger.select(["sample_id", "verdict", "reason", "error"]).to_pylist() == [
        {"sample_id": "a", "verdict": "dropped", "reason": "no content", "error": None},
        {"sample_id": "b", "verdict": "dropped", "reason": "no content", "error": None},
        {"sample_id": "c", "verdict": "failed", "reason": None, "error": "invalid row: an image at position -1"},
    ]
    assert pq.read_table(tmp_path / "kept")["text_content"].to_pylist() == ["words"]
