"""Parquet: the table comes back as it was, in row groups of bounded size."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.core.contracts import LINE
from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout
from clipsieve.writers import ParquetWriter, parquet


def test_types_nulls_and_schema_metadata_survive(written, picture):
    table = pa.table(
        {
            "image": pa.array([{"bytes": picture("PNG"), "path": None}, {"bytes": None, "path": ""}, None]),
            "tags": pa.array([["a", None], [], None], pa.large_list(pa.string())),
            "at": pa.array([1, None, 3], pa.timestamp("ns", tz="UTC")),
            LINE: ["x", "y", "z"],
        }
    ).replace_schema_metadata({"huggingface": '{"info": {"features": {}}}'})
    found = pq.read_table(io.BytesIO(written(ParquetWriter(), table, Layout(kind="captions"))))
    assert found.equals(table.drop_columns([LINE]))
    assert found.schema.metadata == table.schema.metadata


def test_interleaved_rows_keep_their_schema(written):
    table = pa.Table.from_pylist(
        [
            {"sample_id": "a", "position": -1, "modality": "metadata", "text_content": ""},
            {"sample_id": "a", "position": 0, "modality": "image", "binary_content": b"x", "content_type": "image/png"},
        ],
        schema=INTERLEAVED_SCHEMA,
    )
    assert pq.read_table(io.BytesIO(written(ParquetWriter(), table, Layout(kind="interleaved")))).equals(table)


def test_row_groups_are_cut_by_bytes(written, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 10_000)
    table = pa.table({"image": [bytes(1000)] * 100})
    file = pq.ParquetFile(io.BytesIO(written(ParquetWriter(), table, Layout(kind="captions"))))
    assert file.num_row_groups == 12
    assert file.read().equals(table)
