from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsieve.core.contracts import Reader, SourceCounts
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.errors import SourceError
from clipsieve.readers import open_source

ReadAll = Callable[[Reader], tuple[pa.Table, dict[int, str]]]


def source(folder: Path, table: pa.Table, *, group: int = 4, **said: Any) -> Reader:
    pq.write_table(table, folder / "rows.parquet", row_group_size=group)
    return open_source(f"{folder}/rows.parquet", **said)


def documents(ids: list[Any], **columns: list[Any]) -> pa.Table:
    count = len(ids)
    return pa.table(
        {"sample_id": ids, "position": list(range(count)), "modality": ["text"] * count, "text_content": ids} | columns
    )


def test_caption_rows_come_as_they_are_typed(tmp_path: Path, read_all: ReadAll) -> None:
    table = pa.table(
        {
            "uid": pa.array([1, 2, 3, 4, 5], pa.int16()),
            "image": pa.array([{"bytes": b"x", "path": None}, None, *[{"bytes": None, "path": "a.jpg"}] * 3]),
            "TEXT": pa.array(["a", None, "", "b", "c"]).dictionary_encode(),
            "when": pa.array([0, 1, None, 2, 3], pa.timestamp("ns", tz="UTC")),
        }
    )
    reader = source(tmp_path, table, shard_rows=2)
    read, errors = read_all(reader)
    assert read.equals(table)
    assert errors == {}
    assert [(piece.start, piece.stop) for shard in reader.shards() for piece in shard.pieces] == [
        (0, 2),
        (2, 3),
        (3, 5),
    ]
    assert reader.describe() == (
        f'{tmp_path}/rows.parquet: 1 file, Parquet of 5 rows, captions layout, image column "image", '
        'text column "TEXT", id column "uid"'
    )


def test_lists_are_counted_image_by_image(tmp_path: Path, check_promises: Callable[[Reader], None]) -> None:
    table = pa.table({"images": [["a", "b"], [], None, [None]], "texts": [["x"], ["y", "z"], None, []]})
    reader = source(tmp_path, table, shard_rows=3)
    assert (reader.layout.kind, reader.layout.texts) == ("lists", ("texts",))
    assert reader.count() == SourceCounts(samples=4, images=3)
    check_promises(reader)


def test_files_of_wider_and_fewer_columns_go_together(tmp_path: Path, read_all: ReadAll) -> None:
    pq.write_table(pa.table({"image": ["a"], "n": pa.array([1], pa.int32())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": pa.array([2], pa.int64()), "image": ["b"], "x": [True]}), tmp_path / "b.parquet")
    reader = open_source(str(tmp_path))
    assert read_all(reader)[0].to_pylist() == [{"image": "a", "n": 1, "x": None}, {"image": "b", "n": 2, "x": True}]
    assert len(reader.shards()) == 1
    pq.write_table(pa.table({"image": ["c"], "n": ["three"]}), tmp_path / "c.parquet")
    with pytest.raises(SourceError, match=r"c\.parquet: does not go together with .*a\.parquet"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: b"", lambda data: b"PAR1" + data[: len(data) // 2]]
)
def test_a_truncated_file_is_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    source(tmp_path, pa.table({"image": ["a.jpg"] * 100}))
    path = tmp_path / "rows.parquet"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        SourceError, match=r"rows\.parquet: not a whole Parquet file .*fetch or write it again"
    ) as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)


def test_a_damaged_page_is_one_line(tmp_path: Path) -> None:
    reader = source(tmp_path, pa.table({"image": [f"{i}.jpg" for i in range(100)]}), group=100)
    path = tmp_path / "rows.parquet"
    data = bytearray(path.read_bytes())
    data[4:40] = b"\xff" * 36
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match=r"rows\.parquet: cannot be read"):
        reader.read(reader.shards()[0])


def test_documents_stay_whole_and_come_sorted_by_position(
    tmp_path: Path, read_all: ReadAll, check_promises: Callable[[Reader], None]
) -> None:
    ids = ["a", "a", "a", "b", "c", "c", None, "d"]
    table = documents(ids, position=[1, 0, -1, 0, 0, 0, 5, None], text_content=list("12345678"), extra=list(range(8)))
    reader = source(tmp_path, table, group=2, shard_rows=2)
    read, _ = read_all(reader)
    assert reader.layout.kind == "interleaved"
    assert read.column("text_content").to_pylist() == list("32145678")
    assert [reader.read(shard).table.column("sample_id").to_pylist() for shard in reader.shards()] == [
        ["a", "a", "a"], ["b"], ["c", "c"], [None], ["d"],
    ] or len(reader.shards()) == 4  # fmt: skip
    check_promises(reader)


def test_the_schema_is_that_of_interleaved_rows_and_other_columns_pass(tmp_path: Path, read_all: ReadAll) -> None:
    table = pa.table(
        {
            "url": pa.array(["u", "v"], pa.large_string()),
            "sample_id": pa.array(["a", "a"]).dictionary_encode(),
            "position": pa.array([0, 1], pa.int64()),
            "modality": pa.array(["text", "image"], pa.large_string()),
            "text_content": pa.array(["x", None], pa.large_string()),
            "binary_content": pa.array([None, b"\xff"], pa.binary()),
        }
    )
    read, _ = read_all(source(tmp_path, table))
    missing = ["content_type", "source_ref", "materialize_error"]
    assert read.column_names == [*table.column_names, *missing]
    assert all(read.schema.field(field.name).type == field.type for field in INTERLEAVED_SCHEMA)
    assert read.schema.field("url").type == pa.large_string()
    assert read.select(missing).to_pylist() == [dict.fromkeys(missing)] * 2
    assert read.column("binary_content").to_pylist() == [None, b"\xff"]


def test_a_document_in_two_places_is_an_error_that_names_it(tmp_path: Path) -> None:
    reader = source(tmp_path, documents(["a", "b", "b", "c", "b", "d"]), shard_rows=2)
    with pytest.raises(
        SourceError, match=r"rows\.parquet: the rows of document 'b' are not adjacent \(it begins at rows 1 and 4\)"
    ):
        reader.shards()


def test_a_position_that_is_none_is_one_line(tmp_path: Path) -> None:
    reader = source(tmp_path, documents(["a"], position=[2**40]))
    with pytest.raises(SourceError, match=r"rows\.parquet: column 'position' is not int32"):
        reader.read(reader.shards()[0])


def test_documents_of_one_id_in_two_files_are_two(tmp_path: Path, check_promises: Callable[[Reader], None]) -> None:
    for name in "abc":
        pq.write_table(documents(["0", "0"]), tmp_path / f"{name}.parquet")
    reader = open_source(str(tmp_path))
    assert len(reader.shards()) == 3
    assert reader.count() == SourceCounts(samples=3, images=0)
    check_promises(reader)


def test_files_that_share_an_id_share_no_shard(tmp_path: Path) -> None:
    for name, ids in {"1": ["a", "b"], "2": ["c"], "3": ["a"], "4": ["d"]}.items():
        pq.write_table(documents(ids), tmp_path / f"{name}.parquet")
    shards = open_source(str(tmp_path)).shards()
    assert [[Path(piece.path).stem for piece in shard.pieces] for shard in shards] == [["1", "2"], ["3", "4"]]


def test_lists_of_fixed_size_become_lists_since_an_image_may_go(tmp_path: Path, read_all: ReadAll) -> None:
    pairs = pa.array([["a.png", "b.png"], ["c.png", "d.png"]], pa.list_(pa.string(), 2))
    reader = source(tmp_path, pa.table({"images": pairs}))
    read, _ = read_all(reader)
    assert read.schema.field("images").type == pa.list_(pa.string())
    assert read["images"].to_pylist() == pairs.to_pylist()
    assert reader.count() == SourceCounts(samples=2, images=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=25),
    group=st.integers(1, 20),
    shard_rows=st.integers(1, 12),
    batch=st.integers(1, 9),
)
def test_shards_of_documents_are_the_source(
    lengths: list[int], group: int, shard_rows: int, batch: int, tmp_path: Path,
    read_all: ReadAll, check_promises: Callable[[Reader], None],
) -> None:  # fmt: skip
    ids = [f"d{i}" for i, length in enumerate(lengths) for _ in range(length)]
    modality = ["image" if i % 3 == 0 else "text" for i in range(len(ids))]
    table = documents(ids, modality=modality, payload=["x" * i for i in range(len(ids))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipsieve.readers.parquet._COLUMN_ROWS", batch)
        reader = source(tmp_path, table, group=group, shard_rows=shard_rows)
        check_promises(reader)
    read, _ = read_all(reader)
    assert read.select(["sample_id", "modality", "payload"]).equals(table.select(["sample_id", "modality", "payload"]))
    for shard in reader.shards():
        rows = reader.read(shard).table
        whole = {name: ids.count(name) for name in rows.column("sample_id").to_pylist()}
        assert rows.num_rows == sum(whole.values())
        assert len(whole) == 1 or rows.num_rows <= shard_rows
