import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from clipsieve.errors import SourceError
from clipsieve.readers.files import Cursor, LineNumbers, braces, extension, find, open_file


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.rm("/", recursive=True)


def names(path: str) -> list[str]:
    return [file.path.rpartition("/")[2] for file in find(path).files]


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("a.tar", ["a.tar"]),
        ("{008..011}.tar", ["008.tar", "009.tar", "010.tar", "011.tar"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{x,y}/{1..2}", ["x/1", "x/2", "y/1", "y/2"]),
        ("{a,b{1,2}}", ["a", "b1", "a", "b2"]),
        ("{plain}", ["{plain}"]),
    ],
)
def test_braces(pattern: str, expanded: list[str]) -> None:
    assert sorted(set(braces(pattern))) == sorted(set(expanded))


def test_globs_and_folders_leave_out_hidden_files(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", ".hidden.csv", "_SUCCESS", "sub/c.csv", "_temporary/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(f"{tmp_path}/*.csv") == ["a.csv", "b.csv"]
    assert names(f"{tmp_path}/**/*.csv") == ["a.csv", "b.csv", "c.csv"]
    assert names(str(tmp_path)) == ["a.csv", "b.csv", "c.csv"]
    assert names(f"{tmp_path}/{{b,a}}.csv") == ["a.csv", "b.csv"]
    assert names(f"{tmp_path}/_SUCCESS") == ["_SUCCESS"]
    assert names(f"{tmp_path}/_*") == ["_SUCCESS"]


def test_a_changed_file_has_another_version(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x")
    before = find(str(file)).files[0]
    os.utime(file, (1, 1))
    after = find(str(file)).files[0]
    assert (before.path, before.size) == (after.path, after.size) == (str(file), 1)
    assert before.version != after.version


def test_memory_paths_keep_their_protocol(memory: MemoryFileSystem) -> None:
    memory.pipe_file("/data/a.jsonl", b"{}\n")
    (file,) = find("memory://data/*.jsonl").files
    assert file.path == "memory:///data/a.jsonl"
    assert open_file(file.path).read() == b"{}\n"


@pytest.mark.parametrize("path", ["none.csv", "*.csv", "{a,b}.csv", "folder/none/*.csv"])
def test_no_matching_files_is_one_line_with_what_was_looked_for(path: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no matching files; check the path") as caught:
        find(f"{tmp_path}/{path}")
    assert path.replace("{a,b}", "a") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_brace_alternative_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_text("x")
    with pytest.raises(SourceError, match=r"1\.tar: no matching files"):
        find(f"{tmp_path}/{{0..1}}.tar")


@pytest.mark.parametrize("path", ["locked", ""])
def test_an_unreadable_folder_is_one_line(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.csv").write_text("x")
    scandir = os.scandir

    def denied(folder: str) -> Any:  # permissions themselves do not stop root, as whom tests may run
        if str(folder).endswith("locked"):
            raise PermissionError(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(SourceError, match="permission denied"):
        find(f"{tmp_path}/{path}")


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(SourceError, match="nosuch"):
        find("nosuch://bucket/*.csv")


def test_extension_looks_beneath_compression() -> None:
    assert [extension(name) for name in ("x/A.JSONL", "a.tar.gz", "a.csv.zst", ".hidden", "none")] == [
        ".jsonl", ".tar", ".csv", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_ranges_are_those_of_the_decompressed_bytes_in_any_order(tmp_path: Path, ending: str) -> None:
    data = bytes(range(256)) * 5000
    path = f"{tmp_path}/a{ending}"
    with open(path, "wb") as file:
        codec = {".gz": "gzip", ".zst": "zstd"}.get(ending)
        file.write(
            pa.compress(data, codec, asbytes=True) if codec == "zstd" else gzip.compress(data) if codec else data
        )
    cursor = Cursor()
    for start, stop in [(0, 10), (10, 300_000), (900_000, 900_100), (5, 20), (20, 20)]:
        assert cursor.read(path, start, stop) == data[start:stop]
    with pytest.raises(SourceError, match="changed since the run began"):
        cursor.read(path, 0, len(data) + 1)


def test_gzip_in_several_members_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    with open_file(f"{tmp_path}/a.gz") as file:
        assert file.read() == b"one\ntwo\n"


def test_line_numbers(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1\n22\n\n4")
    numbers = LineNumbers()
    assert [numbers.at(f"{tmp_path}/a", offset) for offset in (0, 2, 6, 5, 0)] == [1, 2, 4, 3, 1]


@pytest.mark.parametrize("pattern", ["links/*.jsonl", "links", "links/a.jsonl"])
def test_links_are_read_as_what_they_lead_to(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "links" / "a.jsonl").symlink_to("../a.jsonl")

    (file,) = find(f"{tmp_path}/{pattern}").files

    assert (file.path, file.size) == (f"{tmp_path}/links/a.jsonl", 2)


def test_folders_behind_links_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("{}")
    (tmp_path / "data" / "loop").symlink_to(".")
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "data").symlink_to("../data")

    assert [file.path for file in find(f"{tmp_path}/all").files] == [f"{tmp_path}/all/data/a.jsonl"]


def test_a_run_folder_in_the_folder_that_is_read_is_no_part_of_it(tmp_path: Path) -> None:
    for name in ("a.jpg", "run/recipe.yaml", "run/shards.json", "run/ledger/00000.parquet", "other/recipe.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [Path(file.path).name for file in find(str(tmp_path)).files] == ["a.jpg", "recipe.yaml"]
    assert len(find(str(tmp_path / "run")).files) == 3  # asked for by name
