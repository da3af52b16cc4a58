from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from clipsieve.errors import ColumnError, SourceError, UsageError
from clipsieve.readers import FORMATS, Columns, open_source
from clipsieve.readers.infer import infer_layout

TEXT = pa.string()
IMAGE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", TEXT)])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"image": TEXT, "caption": TEXT, "captions": pa.list_(TEXT)}, ("captions", "image", ("caption",), None)),
        ({"url": TEXT, "TEXT": TEXT, "uid": TEXT}, ("captions", "url", ("TEXT",), "uid")),
        ({"url": TEXT, "images": pa.list_(IMAGE_STRUCT), "texts": TEXT}, ("lists", "images", ("texts",), None)),
        ({"image": pa.int64(), "path": TEXT, "key": pa.int64()}, ("captions", "path", (), "key")),
        ({"file_name": TEXT, "text": IMAGE_STRUCT, "id": pa.float64()}, ("captions", "file_name", (), None)),
        ({"image": IMAGE_STRUCT, "text": pa.dictionary(pa.int32(), TEXT)}, ("captions", "image", ("text",), None)),
    ],
)  # fmt: skip
def test_columns_and_layout_are_inferred(columns: dict[str, pa.DataType], expected: tuple[object, ...]) -> None:
    layout = infer_layout(pa.schema(list(columns.items())), Columns(), None, None, "source")
    assert (layout.kind, layout.image, layout.texts, layout.sample_id) == expected


def test_three_names_make_interleaved_rows() -> None:
    schema = pa.schema([("sample_id", TEXT), ("position", pa.int32()), ("modality", TEXT), ("image", TEXT)])
    assert infer_layout(schema, Columns(), None, None, "source").kind == "interleaved"
    assert infer_layout(schema, Columns(), "captions", None, "source").image == "image"
    assert infer_layout(schema, Columns(image="image"), None, None, "source").kind == "captions"
    with pytest.raises(ColumnError, match=r"source: no column 'modality'; there are sample_id, position, a"):
        infer_layout(
            pa.schema([("sample_id", TEXT), ("position", TEXT), ("a", TEXT)]), Columns(), "interleaved", None, "source"
        )


def test_lists_said_to_be_captions_are_an_error() -> None:
    schema = pa.schema([("images", pa.list_(TEXT))])
    with pytest.raises(ColumnError, match="column 'images' holds lists of images; say layout lists"):
        infer_layout(schema, Columns(), "captions", None, "source")


def test_root_replaces_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image\nx.jpg\n")
    assert open_source(f"{tmp_path}/a.csv", root="/elsewhere").layout.root == "/elsewhere"


def test_formats_go_by_extension_or_as_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("image\nx.jpg\n")
    with pytest.raises(SourceError, match=r"a\.txt: unknown format; known are \.jsonl, .* and folders; give --format"):
        open_source(f"{tmp_path}/a.txt")
    assert open_source(f"{tmp_path}/a.txt", format="csv").count().samples == 1
    with pytest.raises(UsageError, match="unknown format 'parket'; did you mean 'parquet'"):
        open_source(f"{tmp_path}/a.txt", format="parket")
    with pytest.raises(UsageError, match="nothing to read"):
        open_source([])


def test_a_folder_holds_data_files_of_one_format_or_images(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").write_bytes(b"x")
    (tmp_path / "labels.json").write_text("[]")
    assert "folder of 1 images" in open_source(str(tmp_path)).describe()
    (tmp_path / "sub" / "a.csv").write_text("image\na.jpg\n")
    assert "CSV" in open_source(str(tmp_path)).describe()
    (tmp_path / "b.jsonl").write_text('{"image": "sub/a.jpg"}\n')
    with pytest.raises(SourceError, match=r"files of several formats \(.*b\.jsonl and .*a\.csv\); give --format"):
        open_source(str(tmp_path))
    assert "CSV" in open_source(str(tmp_path), format="csv").describe()
    with pytest.raises(SourceError, match=r"no parquet files in it \(\.parquet, \.pq\)"):
        open_source(str(tmp_path), format="parquet")


def test_several_paths_are_read_in_their_order_and_none_twice(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.csv").write_text(f"image\n{name}.jpg\n")
    reader = open_source([f"{tmp_path}/c.csv", f"{tmp_path}/*.csv"])
    assert [file.path[-5] for file in reader.files()] == ["c", "a", "b"]
    (shard,) = reader.shards()
    rows = reader.read(shard)
    assert rows.table.column("image").to_pylist() == ["c.jpg", "a.jpg", "b.jpg"]
    assert [(row, path[-5]) for row, path in rows.origins] == [(0, "c"), (1, "a"), (2, "b")]
    assert f"{tmp_path}/c.csv and 1 more: 3 files, CSV" in reader.describe()


def test_memory_filesystem(tmp_path: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/open/a.jsonl", b'{"image": "a.jpg"}\n')
    reader = open_source("memory://open/*.jsonl")
    rows = reader.read(reader.shards()[0])
    assert rows.origins == ((0, "memory:///open/a.jsonl"),)
    filesystem.rm("/open", recursive=True)


def test_every_format_is_in_the_table() -> None:
    assert [candidate.name for candidate in FORMATS] == ["jsonl", "csv", "parquet", "webdataset", "folder"]
    endings = [ending for candidate in FORMATS for ending in candidate.extensions]
    assert len(endings) == len(set(endings))
