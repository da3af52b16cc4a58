import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsieve.core.contracts import Reader, SourceCounts
from clipsieve.errors import ColumnError, SourceError
from clipsieve.readers import open_source

ReadAll = Callable[[Reader], tuple[pa.Table, dict[int, str]]]


def source(folder: Path, content: str | bytes, name: str = "rows.csv", **said: Any) -> Reader:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_source(str(path), **said)


def test_cells_are_strings_exactly_as_written(tmp_path: Path, read_all: ReadAll) -> None:
    content = '\ufeffid,image,caption\r\n007, a.jpg ,"one, ""two""\r\nthree"\r\n1.0,b.jpg,\r\n\r\ntrue,c.jpg,NaN\r\n'
    reader = source(tmp_path, content)
    table, errors = read_all(reader)
    assert table.to_pylist() == [
        {"id": "007", "image": " a.jpg ", "caption": 'one, "two"\r\nthree'},
        {"id": "1.0", "image": "b.jpg", "caption": ""},
        {"id": "true", "image": "c.jpg", "caption": "NaN"},
    ]
    assert set(table.schema.types) == {pa.string()}
    assert errors == {}
    assert reader.describe().endswith(
        'CSV, captions layout, image column "image", text column "caption", id column "id"'
    )


def test_tabs_separate_in_tsv(tmp_path: Path, read_all: ReadAll) -> None:
    reader = source(tmp_path, "image\ttext\na.jpg\tone, two\n", "rows.tsv")
    assert read_all(reader)[0].to_pylist() == [{"image": "a.jpg", "text": "one, two"}]
    assert "TSV" in reader.describe()


def test_a_ragged_or_undecodable_row_is_an_error_with_its_line(
    tmp_path: Path, read_all: ReadAll, check_promises: Callable[[Reader], None]
) -> None:
    content = b'image,caption\na.jpg,"two\nlines"\nb.jpg\n\nc.jpg,x,y\nd.jpg,\xff\ne.jpg,fine\n'
    reader = source(tmp_path, content, shard_rows=2)
    table, errors = read_all(reader)
    assert table.column("image").to_pylist() == ["a.jpg", None, None, None, "e.jpg"]
    assert errors == {
        1: "malformed CSV at line 4: 1 cells, the header has 2",
        2: "malformed CSV at line 6: 3 cells, the header has 2",
        3: "malformed CSV at line 7: not UTF-8",
    }
    check_promises(reader)


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (b"", SourceError, "has no header; CSV needs a first row with the names"),
        (b"\n\n", SourceError, "has no header"),
        (b"image,image\n", ColumnError, "column 'image' appears twice in the header; rename one"),
        (b"a.jpg,a cat\n", ColumnError, "no image column"),
        (b"\xff\xfei\x00m\x00", SourceError, "its header is not UTF-8; convert the file"),
    ],
)
def test_a_header_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        source(tmp_path, content)


def test_files_of_a_source_have_the_same_columns_in_any_order(tmp_path: Path, read_all: ReadAll) -> None:
    (tmp_path / "a.csv").write_text("image,caption\na.jpg,x\n")
    (tmp_path / "b.csv").write_text("caption,image\ny,b.jpg\n")
    (tmp_path / "c.csv").write_text("image,caption\n")
    assert read_all(open_source(f"{tmp_path}/*.csv"))[0].to_pylist() == [
        {"image": "a.jpg", "caption": "x"},
        {"image": "b.jpg", "caption": "y"},
    ]
    (tmp_path / "d.csv").write_text("image,alt\nd.jpg,z\n")
    with pytest.raises(SourceError, match=r"d\.csv: other columns than .*a\.csv \(alt, caption\)"):
        open_source(f"{tmp_path}/*.csv").shards()


def test_large_cells_are_no_error(tmp_path: Path, read_all: ReadAll) -> None:
    uri = "data:image/png;base64," + "A" * 400_000
    assert read_all(source(tmp_path, f'image\n"{uri}"\n'))[0].column("image").to_pylist() == [uri]


STRAY_QUOTES = [
    'image,caption\na.jpg,5" disk\nb.jpg,6" disk\nc.jpg,"x\ny"\n',
    'image,caption\na.jpg,"x"y"\nb.jpg,z\n',
    'image,caption\na.jpg,5" and\nb.jpg,"fine\nhere"\nc.jpg,x\n',
    'image,caption\na.jpg,""""\n"",x\n',
]


@pytest.mark.parametrize("content", STRAY_QUOTES)
def test_stray_quotes_are_read_as_the_csv_module_reads_them(tmp_path: Path, content: str, read_all: ReadAll) -> None:
    expected = list(csv.reader(io.StringIO(content, newline="")))[1:]
    reader = source(tmp_path, content, shard_rows=1)
    table, errors = read_all(reader)
    assert [list(row.values()) for row in table.to_pylist()] == expected
    assert errors == {}
    assert len(reader.shards()) == len(expected)
    assert reader.count() == SourceCounts(samples=len(expected), images=len(expected))


def test_a_quote_that_is_never_closed_is_an_error_row_that_says_so(tmp_path: Path, read_all: ReadAll) -> None:
    table, errors = read_all(source(tmp_path, 'image,caption\na.jpg,x\nb.jpg,"never closed\nc.jpg,x\n'))
    assert table.column("image").to_pylist() == ["a.jpg", None]
    assert errors == {1: "malformed CSV at line 3: a quote that is never closed"}


CELLS = st.lists(st.sampled_from(["a", '"', ",", "\n", "\r\n", " ", "é", "5"]), max_size=6).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=20),
    shard_rows=st.integers(1, 8),
    chunk=st.integers(1, 40),
    end=st.sampled_from(["\n", "\r\n"]),
    quoted=st.booleans(),
)
def test_shards_are_the_source(
    rows: list[list[str]], shard_rows: int, chunk: int, end: str, quoted: bool, tmp_path: Path,
    read_all: ReadAll, check_promises: Callable[[Reader], None],
) -> None:  # fmt: skip
    text = io.StringIO(newline="")
    if quoted:
        csv.writer(text, lineterminator=end).writerows([["image", "b", "c"], *rows])
    else:
        text.write(end.join(["image,b,c", *(",".join(row) for row in rows)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipsieve.readers.csv.CHUNK", chunk)
        reader = source(tmp_path, text.getvalue(), shard_rows=shard_rows)
        check_promises(reader)
        table, errors = read_all(reader)
    expected = [row for row in csv.reader(io.StringIO(text.getvalue(), newline="")) if row][1:]
    assert table.num_rows == len(expected)
    if "never closed" in errors.get(len(expected) - 1, ""):
        assert '"' in text.getvalue()
        expected.pop()
    for number, row in enumerate(expected):
        assert (number in errors) == (len(row) != 3)
        assert list(table.slice(number, 1).to_pylist()[0].values()) == (row if len(row) == 3 else [None] * 3)


def test_gzip_reads_like_the_plain_file(tmp_path: Path, read_all: ReadAll) -> None:
    content = "image,caption\n" + "".join(f'{i}.jpg,"line\n{i}"\n' for i in range(30))
    plain = source(tmp_path, content, shard_rows=7)
    zipped = source(tmp_path, gzip.compress(content.encode()), "rows.csv.gz", shard_rows=7)
    assert read_all(zipped)[0].equals(read_all(plain)[0])
    assert len(zipped.shards()) == 5
