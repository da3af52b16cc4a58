"""CSV: rows beside the text they become."""

from __future__ import annotations

import csv
import datetime as dt
import io

import pyarrow as pa
import pytest

from clipsieve.core.contracts import LINE
from clipsieve.core.fetch import from_cell
from clipsieve.core.layout import Layout
from clipsieve.writers import CsvWriter

CAPTIONS = Layout(kind="captions")


def test_strings_are_written_as_read_and_quoted_only_where_needed(written):
    table = pa.table(
        {
            "image": ["a.jpg", "b.jpg"],
            "caption": ['say "hi", twice', " two\nlines\r"],
            "n": ["007", ""],
            LINE: ["x", "y"],
        }
    )
    text = written(CsvWriter(), table, CAPTIONS).decode()
    assert text == 'image,caption,n\na.jpg,"say ""hi"", twice",007\nb.jpg," two\nlines\r",\n'
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == [
        ["a.jpg", 'say "hi", twice', "007"],
        ["b.jpg", " two\nlines\r", ""],
    ]


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (None, pa.string(), ""),
        (float("nan"), pa.float64(), ""),
        (0.1, pa.float32(), "0.1"),
        (7, pa.int8(), "7"),
        (True, pa.bool_(), "true"),
        (dt.datetime(2024, 5, 1), pa.timestamp("ms"), "2024-05-01 00:00:00.000"),
        (["a", None], pa.list_(pa.string()), '"[""a"", null]"'),
        (None, pa.list_(pa.string()), ""),
        ({"é": 1.5}, pa.struct([("é", pa.float64())]), '"{""é"": 1.5}"'),
        ("cat", pa.dictionary(pa.int8(), pa.string()), "cat"),
    ],
)
def test_each_arrow_type_has_its_text(written, cell, kind, text):
    table = pa.table({"image": ["a.jpg"], "cell": pa.array([cell], kind)})
    assert written(CsvWriter(), table, CAPTIONS).decode() == f"image,cell\na.jpg,{text}\n"


def test_bytes_become_a_data_uri_that_reads_as_the_same_image(written, picture):
    table = pa.table({"image": pa.array([picture("JPEG")], pa.large_binary())})
    _, cell = written(CsvWriter(), table, CAPTIONS).decode().splitlines()
    assert cell.startswith('"data:image/jpeg;base64,')
    assert from_cell(cell.strip('"'), "").data == picture("JPEG")


def test_a_struct_keeps_bytes_and_path(written, picture):
    table = pa.table({"image": [{"bytes": picture("PNG"), "path": "cat.png"}, {"bytes": None, "path": "dog.png"}]})
    rows = csv.DictReader(io.StringIO(written(CsvWriter(), table, CAPTIONS).decode()))
    cat, dog = (from_cell(row["image"], "root") for row in rows)
    assert (cat.data, cat.path) == (picture("PNG"), "cat.png")
    assert (dog.data, dog.path) == (None, "root/dog.png")


def test_a_row_of_one_missing_cell_is_still_a_row(written):
    assert written(CsvWriter(), pa.table({"image": ["a.jpg", None]}), CAPTIONS) == b'image\na.jpg\n""\n'
