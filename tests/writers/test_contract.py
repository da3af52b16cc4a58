"""What every writer promises, over the whole table of them and all layouts."""

from __future__ import annotations

from itertools import product

import pyarrow as pa
import pytest

from clipsieve.core.contracts import LINE
from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout
from clipsieve.errors import RecipeError
from clipsieve.writers import WRITERS, writer

LAYOUTS = {
    "captions": Layout(kind="captions", texts=("caption",)),
    "lists": Layout(kind="lists", image="images", texts=("text",)),
    "interleaved": Layout(kind="interleaved"),
}
REFUSED = {("csv", "lists"), ("csv", "interleaved"), ("jsonl", "interleaved")}


def rows(kind: str, png: bytes) -> pa.Table:
    """Two samples of a layout with a passthrough column."""
    if kind == "captions":
        return pa.table({"image": [png, png], "caption": ["é", None], "passthrough": ["kept 0", "kept 1"]})
    if kind == "lists":
        return pa.table({"images": [[png, png], []], "text": ["é", ""], "passthrough": ["kept 0", "kept 1"]})
    table = pa.Table.from_pylist(
        [
            {"sample_id": "a", "position": 0, "modality": "image", "binary_content": png},
            {"sample_id": "b", "position": 0, "modality": "text", "text_content": "é"},
        ],
        schema=INTERLEAVED_SCHEMA,
    )
    return table.append_column("passthrough", pa.array(["kept 0", "kept 1"]))


@pytest.mark.parametrize(("name", "kind"), sorted({*product(WRITERS, LAYOUTS)} - REFUSED))
def test_equal_rows_make_equal_bytes_however_they_lie_in_memory(written, picture, name, kind):
    table = rows(kind, picture("PNG"))
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    shifted = pa.concat_tables([table, table]).combine_chunks().slice(2)
    files = {written(writer(name, kind), one, LAYOUTS[kind]) for one in (table, chunked, shifted)}
    assert len(files) == 1


@pytest.mark.parametrize(("name", "kind"), sorted({*product(WRITERS, LAYOUTS)} - REFUSED))
def test_hidden_columns_are_not_written(written, picture, name, kind):
    table, lines = rows(kind, picture("PNG")), ['{"images": ["a", "b"]}', '{"images": []}']
    data = written(writer(name, kind), table.append_column(LINE, pa.array(lines)), LAYOUTS[kind])
    expected = (
        "\n".join([*lines, ""]).encode() if name == "jsonl" else written(writer(name, kind), table, LAYOUTS[kind])
    )
    assert data == expected


@pytest.mark.parametrize(("name", "kind"), sorted(REFUSED))
def test_a_layout_that_a_format_cannot_hold_is_refused_with_those_that_can(name, kind):
    message = f"^{kind} samples cannot be written as {name}; write .*parquet or webdataset$"
    with pytest.raises(RecipeError, match=message):
        writer(name, kind)
