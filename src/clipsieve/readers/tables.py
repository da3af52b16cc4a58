"""Brings the rows of interleaved documents into the types and the order that the other floors rely on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.layout import INTERLEAVED_SCHEMA, sample_runs
from clipsieve.errors import SourceError

_LAST = 2**31 - 1


def interleaved_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with the columns of ``INTERLEAVED_SCHEMA`` in their types, those it lacks behind the others."""
    for field in INTERLEAVED_SCHEMA:
        index = schema.get_field_index(field.name)
        schema = schema.append(field) if index < 0 else schema.set(index, schema.field(index).with_type(field.type))
    return schema


def conformed(table: pa.Table, schema: pa.Schema, path: str) -> pa.Table:
    """The table with exactly the columns of ``schema``: cast where types differ, null where absent.

    Raises ``SourceError`` when a value does not fit.
    """
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        try:
            columns.append(column if column.type.equals(field.type) else column.cast(field.type))
        except pa.ArrowException as failure:
            raise SourceError(f"{path}: column {field.name!r} is not {field.type}: {failure}") from None
    return pa.Table.from_arrays(columns, schema=schema)


def sorted_by_position(table: pa.Table) -> pa.Table:
    """Rows of adjacent documents, each by position (metadata at -1 first, null last); equal positions keep order."""
    positions = pc.fill_null(table.column("position"), _LAST).to_numpy()
    order = np.lexsort((positions, sample_runs(table.column("sample_id").combine_chunks())))
    return table if (np.diff(order) == 1).all() else table.take(pa.array(order))
