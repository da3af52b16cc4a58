"""JSON lines: rows beside the lines they become."""

from __future__ import annotations

import base64
import datetime as dt
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from clipsieve.core.contracts import LINE
from clipsieve.core.fetch import from_cell
from clipsieve.core.layout import Layout, add_scores, keep_rows, parts
from clipsieve.writers import JsonlWriter
from clipsieve.writers.cells import json_column

CAPTIONS = Layout(kind="captions", texts=("caption",))
LISTS = Layout(kind="lists", image="images", texts=("text",))


def with_lines(*lines: str, layout: Layout = CAPTIONS) -> pa.Table:
    """The rows of JSON lines as the reader gives them."""
    table = pa.Table.from_pylist([json.loads(line) for line in lines])
    return table.append_column(LINE, pa.array(lines))


def test_a_source_line_is_written_as_it_was(written):
    lines = ['{"image":"a.jpg",  "caption":"Caf\\u00e9", "score": 1.50}', '{"caption": "b", "image": "b.jpg"}']
    assert written(JsonlWriter(), with_lines(*lines), CAPTIONS) == "\n".join([*lines, ""]).encode()


def test_scores_join_the_line_and_nothing_else_changes(written):
    line = '{"image":"a.jpg", "n": 12345678901234567890123, "caption": "\\u00e9", "odd": NaN}'
    table = pa.table(
        {"image": ["a.jpg"], "n": ["12345678901234567890123"], "caption": ["é"], "odd": [None], LINE: [line]}
    )
    scored = add_scores(
        table, CAPTIONS, parts(table, CAPTIONS), {"blur": pa.array([0.1], pa.float32())}, {"words": pa.array([1])}
    )
    assert written(JsonlWriter(), scored, CAPTIONS).decode() == (
        '{"image": "a.jpg", "n": 12345678901234567890123, "caption": "é", "odd": null, "blur": 0.1, "words": 1}\n'
    )


def test_a_score_takes_the_place_of_a_column_of_its_name(written):
    table = with_lines('{"blur": 3, "image": "a.jpg"}')
    layout = Layout(kind="captions")
    scored = add_scores(table, layout, parts(table, layout), {"blur": pa.array([1.5])}, {})
    assert written(JsonlWriter(), scored, layout) == b'{"blur": 1.5, "image": "a.jpg"}\n'


def test_a_missing_score_is_null(written):
    table = with_lines('{"image": "a.jpg"}', '{"image": "b.jpg"}')
    layout = Layout(kind="captions")
    scored = add_scores(table, layout, parts(table, layout), {"blur": pa.array([float("nan"), None])}, {})
    assert written(JsonlWriter(), scored, layout).decode().splitlines() == [
        '{"image": "a.jpg", "blur": null}',
        '{"image": "b.jpg", "blur": null}',
    ]


def test_only_a_row_that_lost_an_image_is_written_anew(written):
    whole, shorter = '{"images":["a.jpg","b.jpg"],"text":"x"}', '{"images":["c.jpg","d.jpg"],"text":"y","id":7}'
    table = with_lines(whole, shorter)
    kept, _ = keep_rows(table, LISTS, parts(table, LISTS), np.array([1, 1, 0, 1], bool), np.array([1, 1], bool))
    assert written(JsonlWriter(), kept, LISTS).decode().splitlines() == [
        whole,
        '{"images": ["d.jpg"], "text": "y", "id": 7}',
    ]


def test_a_list_of_scores_stands_beside_a_list_of_images(written):
    table = with_lines('{"images": ["a.jpg", "b.jpg"]}', '{"images": []}')
    layout = Layout(kind="lists", image="images")
    scored = add_scores(table, layout, parts(table, layout), {"blur": pa.array([1.5, float("nan")])}, {})
    assert written(JsonlWriter(), scored, layout).decode().splitlines() == [
        '{"images": ["a.jpg", "b.jpg"], "blur": [1.5, null]}',
        '{"images": [], "blur": []}',
    ]


@pytest.mark.parametrize("line", ["{broken", "[1, 2]"])
def test_a_line_that_is_no_object_stays_as_it_is_even_with_scores(written, line):
    table = pa.table({"image": pa.nulls(1, pa.string()), LINE: [line]})
    scored = add_scores(table, CAPTIONS, parts(table, Layout(kind="captions")), {"blur": pa.array([1.0])}, {})
    assert written(JsonlWriter(), scored, Layout(kind="captions"), errors={0: "line 1"}).decode() == f"{line}\n"


def test_bytes_become_a_data_uri_that_reads_as_the_same_image(written, picture):
    png = picture("PNG")
    table = pa.table({"image": [png], "thumb": [{"bytes": b"??", "path": "t.bin"}]})
    row = json.loads(written(JsonlWriter(), table, Layout(kind="captions")))
    assert row == {
        "image": "data:image/png;base64," + base64.b64encode(png).decode(),
        "thumb": {"bytes": "data:application/octet-stream;base64,Pz8=", "path": "t.bin"},
    }
    assert from_cell(row["image"], "").data == png
    assert from_cell(row["thumb"], "").data == b"??"
    assert from_cell(row["thumb"], "").reference == "t.bin"


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (None, pa.string(), "null"),
        ("", pa.string(), '""'),
        ("é\n\u2028🦆", pa.string(), '"é\\n\u2028🦆"'),
        (True, pa.bool_(), "true"),
        (2**63 - 1, pa.int64(), "9223372036854775807"),
        (0.1, pa.float32(), "0.1"),
        (float("inf"), pa.float64(), "null"),
        ([0.1, float("nan"), None], pa.list_(pa.float32()), "[0.1, null, null]"),
        ([0.1, 0.2], pa.list_(pa.float32(), 2), "[0.1, 0.2]"),
        (1714564800123456789, pa.timestamp("ns"), '"2024-05-01 12:00:00.123456789"'),
        (dt.date(2024, 5, 1), pa.date32(), '"2024-05-01"'),
        (Decimal("1.50"), pa.decimal128(8, 2), '"1.50"'),
        ({"a": [dt.date(2024, 5, 1)]}, pa.struct([("a", pa.list_(pa.date32()))]), '{"a": ["2024-05-01"]}'),
        ([("k", dt.date(2024, 5, 1))], pa.map_(pa.string(), pa.date32()), '[["k", "2024-05-01"]]'),
        ("cat", pa.dictionary(pa.int8(), pa.string()), '"cat"'),
    ],
)  # fmt: skip
def test_each_arrow_type_has_its_json(written, cell, kind, text):
    column = pa.array([cell], pa.int64()).cast(kind) if kind == pa.timestamp("ns") else pa.array([cell], kind)
    table = pa.table({"image": ["a.jpg"], "cell": column})
    assert written(JsonlWriter(), table, Layout(kind="captions")).decode() == f'{{"image": "a.jpg", "cell": {text}}}\n'


def test_half_a_surrogate_pair_is_escaped(written):
    table = with_lines('{"image": "a.jpg"}').set_column(1, LINE, pa.array(['{"image": "a.jpg", "odd": "\\ud83e"}']))
    scored = add_scores(table, CAPTIONS, parts(table, Layout(kind="captions")), {"blur": pa.array([1.0])}, {})
    line = written(JsonlWriter(), scored, Layout(kind="captions")).decode()
    assert line == '{"image": "a.jpg", "odd": "\\ud83e", "blur": 1.0}\n'


def test_no_rows_make_an_empty_file(written):
    assert written(JsonlWriter(), pa.table({"image": pa.array([], pa.string())}), Layout(kind="captions")) == b""


def test_a_slice_of_lists_whose_items_lack_a_field_is_written() -> None:
    """Arrow cannot cast such a slice, even to the type that it has."""
    rows = [{"images": [{"bytes": b"x", "path": None}] * (n % 3 + 1)} for n in range(4)]
    sliced = pa.Table.from_pylist(rows).slice(2)
    assert [len(cells) for cells in json_column(sliced["images"])] == [3, 1]
