import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsieve.core.contracts import LINE, Reader, SourceCounts
from clipsieve.errors import ColumnError, SourceError
from clipsieve.readers import Columns, open_source
from clipsieve.readers.jsontypes import infer

ReadAll = Callable[[Reader], tuple[pa.Table, dict[int, str]]]


def source(folder: Path, content: str | bytes, **said: Any) -> Reader:
    path = folder / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_source(str(path), **said)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_rows_are_typed_and_keep_their_lines(tmp_path: Path) -> None:
    content = (
        '{"image": "a.jpg", "caption": "a cat", "n": 1, "score": 1}\n{"score":2.50,"image":"b.jpg","tags":["x"]}\n'
    )
    reader = source(tmp_path, content)
    rows = reader.read(reader.shards()[0])
    assert rows.table.to_pylist() == [
        {"image": "a.jpg", "caption": "a cat", "n": 1, "score": 1.0, "tags": None, LINE: content.splitlines()[0]},
        {"image": "b.jpg", "caption": None, "n": None, "score": 2.5, "tags": ["x"], LINE: content.splitlines()[1]},
    ]
    assert rows.table.schema.field("score").type == pa.float64()
    assert rows.origins == ((0, f"{tmp_path}/rows.jsonl"),)
    assert rows.errors == {}
    assert reader.describe() == (
        f'{tmp_path}/rows.jsonl: 1 file, JSON lines, captions layout, image column "image", '
        'text column "caption", id none'
    )


MALFORMED = [
    (b'{"image": "b.jpg"', "malformed JSON at line 2: Expecting"),
    (b"[1, 2]", "malformed JSON at line 2: an array in place of an object"),
    (b"plain", "malformed JSON at line 2: Expecting value"),
    (b'{"image": "b.jpg"} {"image": "c.jpg"}', "malformed JSON at line 2: Extra data"),
    (b'{"image": "\xff\xfe"}', "not UTF-8 at line 2: byte 0xff in column 12"),
    (b'{"image": "\\ud800"}', "unexpected value at line 2: column 'image' holds \"\\ud800\", half of a surrogate"),
    (b"[" * 100_000, "malformed JSON at line 2: "),
]


@pytest.mark.parametrize(("line", "error"), MALFORMED)
def test_a_malformed_line_is_an_error_row_and_its_neighbours_are_untouched(
    tmp_path: Path, line: bytes, error: str
) -> None:
    reader = source(tmp_path, b'{"image": "a.jpg"}\n' + line + b'\n{"image": "d.jpg"}\n')
    rows = reader.read(reader.shards()[0])
    assert rows.table.column("image").to_pylist() == ["a.jpg", None, "d.jpg"]
    assert list(rows.errors) == [1]
    assert rows.errors[1].startswith(error)
    assert rows.table.column(LINE).to_pylist()[1] is not None
    assert reader.count() == SourceCounts(samples=3, images=3)


def test_line_numbers_hold_across_shards_blank_lines_and_a_byte_order_mark(tmp_path: Path, read_all: ReadAll) -> None:
    content = b"\xef\xbb\xbf" + b'{"image": "a"}\r\n\r\n  \n{"image": 2}\n{"image": "b"}\n\n{oops\n\n{"image": "c"}'
    reader = source(tmp_path, content, shard_rows=1)
    table, errors = read_all(reader)
    assert table.column("image").to_pylist() == ["a", "2", "b", None, "c"]
    assert {row: error.partition(":")[0] for row, error in errors.items()} == {3: "malformed JSON at line 7"}
    assert reader.count() == SourceCounts(samples=5, images=5)


def test_two_objects_on_a_line_and_one_on_two_lines_are_never_taken_for_rows(tmp_path: Path, read_all: ReadAll) -> None:
    for broken in ('{"image":\n"c"}', '{"image": "c}\n{c"}'):
        table, errors = read_all(source(tmp_path, f'{{"image": "a"}}{{"image": "b"}}\n{broken}\n{{"image": "d"}}\n'))
        assert table.column("image").to_pylist() == [None, None, None, "d"]
        assert sorted(errors) == [0, 1, 2]


def test_a_value_that_does_not_fit_the_inferred_type_is_an_error_with_column_value_and_type(
    tmp_path: Path, read_all: ReadAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipsieve.readers.jsonl.SAMPLE_PLACES", 1)
    monkeypatch.setattr("clipsieve.readers.jsonl.SAMPLE_BYTES", 60)
    good = {"image": "a.jpg", "width": 7, "meta": {"k": True}}
    late = [{"width": "wide"}, {"width": 2**64}, {"width": 1.5}, {"meta": {"z": 1}}, {"lang": 1}, {"width": None}]
    reader = source(tmp_path, lines(good, good, *({"image": "b.jpg"} | row for row in late)))
    table, errors = read_all(reader)
    assert errors == {
        2: "unexpected value at line 3: column 'width' holds \"wide\", expected int64",
        3: "unexpected value at line 4: column 'width' holds 18446744073709551616, expected int64",
        4: "unexpected value at line 5: column 'width' holds 1.5, expected int64",
        5: "unexpected value at line 6: column 'meta' holds {\"z\": 1}, expected struct<k: bool>",
        6: "unexpected value at line 7: column 'lang' is new here (value 1); columns are those of the sampled rows",
    }
    assert table.num_rows == 8


STRUCT = pa.struct([("a", pa.int64()), ("b", pa.string())])


@pytest.mark.parametrize(
    ("values", "kind", "cells"),
    [
        ([1, None, 2], pa.int64(), [1, None, 2]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, None], pa.bool_(), [True, None]),
        (["a", 1, {"b": [2]}, None], pa.string(), ["a", "1", '{"b": [2]}', None]),
        (["a", ["b", "c"]], pa.list_(pa.string()), [["a"], ["b", "c"]]),
        ([[], None], pa.list_(pa.string()), [[], None]),
        ([{"a": 1}, {"b": "x"}], STRUCT, [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ([{}, {}], pa.string(), ["{}", "{}"]),
        ([None, None], pa.string(), [None, None]),
        ([float("nan"), 2], pa.int64(), [None, 2]),
        (["a", float("nan")], pa.string(), ["a", None]),
        ([2**63, 1], pa.string(), ["9223372036854775808", "1"]),
        ([{"k": 1}, {"k": "x"}], pa.string(), ['{"k": 1}', '{"k": "x"}']),
    ],
)  # fmt: skip
def test_inferred_types(values: list[Any], kind: pa.DataType, cells: list[Any]) -> None:
    schema = infer({"c": value} for value in values)
    assert schema.types == {"c": kind}
    assert [schema.cells({"c": value})["c"] for value in values] == cells
    assert pa.array(cells, kind).to_pylist() == cells


def test_nan_tokens_are_accepted(tmp_path: Path, read_all: ReadAll) -> None:
    table, errors = read_all(source(tmp_path, '{"image": "a", "s": 1.5}\n{"image": NaN, "s": NaN}\n'))
    assert errors == {}
    assert table.column("image").to_pylist() == ["a", None]
    assert str(table.column("s").to_pylist()) == "[1.5, nan]"


def test_list_columns_make_the_lists_layout(
    tmp_path: Path, read_all: ReadAll, check_promises: Callable[[Reader], None]
) -> None:
    content = lines({"images": ["a", "b"], "text": "x"}, {"images": []}, {"images": "c"}, {"images": None}) + "{oops\n"
    reader = source(tmp_path, content, shard_rows=2)
    table, _ = read_all(reader)
    assert reader.layout.kind == "lists"
    assert table.column("images").to_pylist() == [["a", "b"], [], ["c"], None, None]
    assert reader.count() == SourceCounts(samples=5, images=4)  # the malformed line counts as one image
    check_promises(reader)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "holds no rows"),
        (b"\n \n", "holds no rows"),
        (b'[{"image": "a.jpg"}]', r"a JSON array .*makes it lines.*one JSON object"),
        (b"once upon a time\n", "malformed JSON"),
    ],
)
def test_what_is_no_json_lines_at_all_is_one_line(tmp_path: Path, content: bytes, error: str) -> None:
    with pytest.raises(SourceError, match=error):
        source(tmp_path, content)


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    content = lines({"picture": "a.jpg", "caption": "x"})
    with pytest.raises(ColumnError, match=r"no image column .*say which of picture, caption"):
        source(tmp_path, content)
    with pytest.raises(ColumnError, match=r"no column 'pictures'; did you mean 'picture'\? There are picture, caption"):
        source(tmp_path, content, columns=Columns(image="pictures"))
    said = source(tmp_path, content, columns=Columns(image="picture", text=()))
    assert (said.layout.image, said.layout.texts) == ("picture", ())


def test_interleaved_rows_are_not_read_from_json_lines(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="interleaved documents are read from Parquet and WebDataset"):
        source(tmp_path, lines({"sample_id": "a", "position": 0, "modality": "text"}))


def test_a_rare_column_of_a_small_source_is_found(tmp_path: Path, read_all: ReadAll) -> None:
    rows = [{"image": f"{i}.jpg", "caption": "x" * 200} for i in range(6000)]
    rows[3777]["rare"] = "here"
    for ending, content in (("jsonl", lines(*rows).encode()), ("jsonl.gz", gzip.compress(lines(*rows).encode()))):
        path = tmp_path / f"rows.{ending}"
        path.write_bytes(content)
        table, errors = read_all(open_source(str(path)))
        assert table.column("rare").to_pylist()[3777] == "here"
        assert not errors


ROWS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"image": st.text(max_size=5) | st.none()},
            optional={"caption": st.text(max_size=30), "n": st.integers(-5, 2**63 - 1), "deep": st.just({"a": [1]})},
        ).map(json.dumps),
        st.sampled_from(["", "  ", "{", "[]", '{"image": 1', "\r", '{"image": {"bytes": "data:,"}}']),
    ),
    max_size=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(rows=ROWS, shard_rows=st.integers(1, 50), shard_bytes=st.integers(1, 300), end=st.sampled_from(["\n", "\r\n"]))
def test_shards_are_the_source(
    rows: list[str], shard_rows: int, shard_bytes: int, end: str,
    tmp_path: Path, read_all: ReadAll, check_promises: Callable[[Reader], None],
) -> None:  # fmt: skip
    rows = ['{"image": "first", "caption": "", "n": 1, "deep": null}', *rows]
    reader = source(tmp_path, end.join(rows), shard_rows=shard_rows, shard_bytes=shard_bytes)
    check_promises(reader)
    table, errors = read_all(reader)
    kept = [row for row in rows if row.strip()]
    assert table.num_rows == len(kept)
    for row, text in enumerate(kept):
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        assert (row in errors) == (not isinstance(parsed, dict))
        if row not in errors and isinstance(parsed["image"], str | None):
            assert table.column("n")[row].as_py() == parsed.get("n")


def test_gzip_and_zstd_read_like_the_plain_file(tmp_path: Path, read_all: ReadAll) -> None:
    content = lines(*({"image": f"{i}.jpg", "caption": "word " * i} for i in range(50))).encode()
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "c.jsonl.zst").write_bytes(pa.compress(content, "zstd", asbytes=True))
    plain, zipped, packed = (
        open_source(f"{tmp_path}/{name}", shard_rows=7) for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst")
    )
    assert read_all(plain)[0].equals(read_all(zipped)[0])
    assert read_all(plain)[0].equals(read_all(packed)[0])
    assert len(zipped.shards()) == len(plain.shards()) == 8


def test_a_truncated_gzip_is_one_line(tmp_path: Path) -> None:
    content = gzip.compress(lines(*({"image": f"{i}.jpg", "n": i * 7919} for i in range(20_000))).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"a\.jsonl\.gz: cannot be read: .*[Tt]runcated"):
        open_source(f"{tmp_path}/a.jsonl.gz").shards()


@pytest.mark.parametrize("odd", [False, [5, 6], [["x"]], [{"bytes": 5}], 7])
def test_in_a_column_of_lists_what_is_no_image_is_an_error_of_its_row_alone(
    tmp_path: Path, read_all: ReadAll, odd: Any
) -> None:
    reader = source(tmp_path, lines({"images": ["a", "b"]}, {"images": odd}, {"images": "c"}))
    assert reader.layout.kind == "lists"
    table, errors = read_all(reader)
    assert table.column("images").to_pylist() == [["a", "b"], None, ["c"]]
    assert {row: error.partition(":")[0] for row, error in errors.items()} == {1: "unexpected value at line 2"}
    assert reader.count() == SourceCounts(samples=3, images=4)


@pytest.mark.parametrize("first", [{"path": "a"}, [{"path": "a"}], [{"bytes": "x"}], {"a": 1}, False, [5]])
def test_the_first_row_decides_nothing_for_the_others(tmp_path: Path, read_all: ReadAll, first: Any) -> None:
    reader = source(tmp_path, lines({"images": first}, *[{"images": ["a", "b"]}] * 3))
    table, errors = read_all(reader)
    assert table.column("images").to_pylist() == [None, *[["a", "b"]] * 3]
    assert list(errors) == [0]
