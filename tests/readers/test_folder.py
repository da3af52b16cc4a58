from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from clipsieve.core.contracts import Reader
from clipsieve.errors import SourceError
from clipsieve.readers import open_source

ReadAll = Callable[[Reader], tuple[pa.Table, dict[int, str]]]


def fill(folder: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_images_with_their_captions(
    tmp_path: Path, read_all: ReadAll, check_promises: Callable[[Reader], None]
) -> None:
    files = {
        "b.JPG": b"b", "b.txt": b"\xef\xbb\xbfa caption\nin two lines\r\n", "a/x.png": b"x", "a/x.webp": b"x",
        "a/x.txt": b"of both", "c.v2.jpg": b"c", "notes.txt": b"no image", "labels.json": b"[]", ".thumb.jpg": b"t",
    }  # fmt: skip
    fill(tmp_path, **files)
    reader = open_source(str(tmp_path), shard_rows=3)
    table, errors = read_all(reader)
    assert table.to_pylist() == [
        {"id": "a/x.png", "image": f"{tmp_path}/a/x.png", "caption": "of both"},
        {"id": "a/x.webp", "image": f"{tmp_path}/a/x.webp", "caption": "of both"},
        {"id": "b", "image": f"{tmp_path}/b.JPG", "caption": "a caption\nin two lines"},
        {"id": "c.v2", "image": f"{tmp_path}/c.v2.jpg", "caption": None},
    ]
    assert errors == {}
    assert reader.describe() == (
        f"{tmp_path}: 8 files, folder of 4 images with 2 captions, 2 left out, captions layout, "
        'image column "image", text column "caption", id column "id"'
    )
    assert [file.path.rpartition("/")[2] for file in reader.files()] == [
        "x.png", "x.webp", "b.JPG", "c.v2.jpg", "x.txt", "b.txt",
    ]  # fmt: skip
    check_promises(reader)


def test_a_caption_that_is_no_text_makes_its_row_an_error(tmp_path: Path, read_all: ReadAll) -> None:
    fill(tmp_path, **{"a.jpg": b"a", "a.txt": b"\xff\xfe", "b.jpg": b"b", "b.txt": b"fine"})
    table, errors = read_all(open_source(str(tmp_path)))
    assert table.column("caption").to_pylist() == [None, "fine"]
    assert errors == {0: f"caption {tmp_path}/a.txt: not UTF-8"}


def test_shards_are_bounded_by_the_bytes_of_the_images(tmp_path: Path) -> None:
    fill(tmp_path, **{f"{i}.jpg": b"x" * 10 for i in range(6)})
    reader = open_source(str(tmp_path), shard_bytes=25)
    assert [(piece.start, piece.stop) for shard in reader.shards() for piece in shard.pieces] == [
        (0, 2),
        (2, 4),
        (4, 6),
    ]


def test_several_folders_are_read_in_order_and_one_inside_another_once(tmp_path: Path, read_all: ReadAll) -> None:
    fill(tmp_path, **{"z/1.jpg": b"1", "a/2.jpg": b"2", "a/sub/3.jpg": b"3"})
    reader = open_source([f"{tmp_path}/z", f"{tmp_path}/a", f"{tmp_path}/a/sub"])
    assert read_all(reader)[0].column("id").to_pylist() == ["1", "2", "sub/3"]


def test_a_folder_without_images_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images and no data files in it"):
        open_source(str(tmp_path))
    fill(tmp_path, **{"a.jpg": b"a"})
    with pytest.raises(SourceError, match=r"a\.jpg: an image; give the folder"):
        open_source(f"{tmp_path}/*.jpg")
