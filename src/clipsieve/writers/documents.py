"""Interleaved documents as members of a tar, in the MINT-1T style of ``docs/design/webdataset-documents.md``.

The JSON lists what other tools read; its field ``clipsieve`` holds what lists cannot, so that every row comes back.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.batch import Batch
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.writers.cells import dump, image_bytes, image_type, is_score, json_column, json_rows, visible
from clipsieve.writers.keys import encoded, unique

FIELDS = ("sample_id", "texts", "images", "clipsieve")
"""The fields of a document's JSON that are not columns."""


def documents(batch: Batch) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each member: a document's JSON, then its images in order, then the next document."""
    table, parts = visible(batch.table), batch.parts
    modality, text = table.column("modality").to_pylist(), table.column("text_content").to_pylist()
    image_at = {row: image for image, row in enumerate(parts.image_rows.tolist())}
    scores = {field.name: json_column(table.column(field.name)) for field in table.schema if is_score(field)}
    metadata = _metadata(table)
    rest = _rest(table)
    keys = unique(encoded(sample_id or "") or "_" for sample_id in parts.sample_ids)
    starts = [*parts.sample_rows.tolist(), table.num_rows]
    for key, sample_id, start, end in zip(keys, parts.sample_ids, starts, starts[1:], strict=False):
        content = [row for row in range(start, end) if modality[row] in ("text", "image")]
        members = _members(batch, key, [image_at.get(row) for row in content])
        bare = [row for entry, row in enumerate(content) if row in image_at and entry not in members]
        rows = rest.slice(start, end - start)
        if bare:
            rows = _with_errors(rows, {row - start: batch.errors.get(image_at[row]) for row in bare})
        record = {
            "sample_id": sample_id,
            "texts": [text[row] if modality[row] == "text" else None for row in content],
            "images": [members[entry][0] if entry in members else None for entry in range(len(content))],
            **{name: [cells[row] for row in content] for name, cells in scores.items()},
            **next((metadata[row] for row in range(start, end) if row in metadata), {}),
            "clipsieve": {"rows": _packed(rows)},
        }
        yield f"{key}.json", dump(record).encode()
        yield from members.values()


def _members(batch: Batch, key: str, entries: Sequence[int | None]) -> Mapping[int, tuple[str, bytes]]:
    """Name and bytes of the images among a document's list entries, by entry; one without bytes has no member."""
    members = {}
    for entry, image in enumerate(entries):
        data = None if image is None else image_bytes(batch, image)
        if data is not None:
            extension, _ = image_type(data) or ("bin", "")
            members[entry] = f"{key}.{entry}.{extension}", data
    return members


def _metadata(table: pa.Table) -> Mapping[int, dict[str, Any]]:
    """What the metadata rows hold beside the schema's columns, by row; nulls and bytes are left to the packed rows."""
    others = [
        field.name
        for field in table.schema
        if not (is_score(field) or field.name in (*INTERLEAVED_SCHEMA.names, *FIELDS) or _is_bytes(field.type))
    ]
    if not others:  # a table without columns would have no rows
        return {}
    rows = pc.indices_nonzero(_is(table.column("modality"), "metadata"))
    found = json_rows(table.select(others).take(rows))
    return {
        row: {name: cell for name, cell in cells.items() if cell is not None}
        for row, cells in zip(rows.to_pylist(), found, strict=True)
    }


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _rest(table: pa.Table) -> pa.Table:
    """All rows and columns, with null for what stands in the lists and the members."""
    modality = table.column("modality")
    for name, elsewhere in (("sample_id", None), ("text_content", "text"), ("binary_content", "image")):
        index = table.schema.get_field_index(name)
        column = table.column(index)
        nulls = pa.nulls(table.num_rows, column.type)
        left = nulls if elsewhere is None else pc.if_else(_is(modality, elsewhere), nulls, column)
        table = table.set_column(index, table.schema.field(index), left)
    return table.replace_schema_metadata(None).combine_chunks()


def _is(column: pa.ChunkedArray, value: str) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(column, value), False)


def _with_errors(rows: pa.Table, errors: Mapping[int, str | None]) -> pa.Table:
    """The rows with the reason why an image has no member, where they do not give one already."""
    index = rows.schema.get_field_index("materialize_error")
    field, reasons = rows.schema.field(index), rows.column(index).to_pylist()
    for row, error in errors.items():
        if reasons[row] is None:
            reasons[row] = error
    return rows.set_column(index, field, pa.array(reasons, type=field.type))


def _packed(rows: pa.Table) -> str:
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows)
    return base64.b64encode(zlib.compress(stream.getvalue())).decode("ascii")
