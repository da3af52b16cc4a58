"""What travels between operators: one row a shard, its columns raw bytes, so that who needs one copies no other."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

ShardRow: TypeAlias = Mapping[str, pa.Buffer]
"""The columns of a row by name."""


def packed(columns: Mapping[str, Any]) -> pa.Table:
    """A row of ``columns``: what is no buffer is pickled. Only our own processes read it."""
    arrays = {
        name: _column(value if isinstance(value, pa.Buffer) else pickled(value)) for name, value in columns.items()
    }
    return pa.table(arrays)


def unpacked(table: pa.Table) -> list[ShardRow]:
    """The rows of a table; the buffers share its memory."""
    return [
        {name: column.as_buffer() for name, column in zip(table.column_names, row, strict=True)}
        for row in zip(*table.columns, strict=True)
    ]


def pickled(value: Any) -> pa.Buffer:
    """A value as bytes."""
    return pa.py_buffer(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))


def unpickled(row: ShardRow, name: str) -> Any:
    """The value that was pickled into a column."""
    return pickle.loads(row[name])


def of_array(array: np.ndarray[Any, Any]) -> pa.Buffer:
    """The memory of an array, without a copy."""
    return pa.py_buffer(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def of_table(table: pa.Table) -> pa.Buffer:
    """A table as bytes, of slices only what they show."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def to_table(buffer: pa.Buffer) -> pa.Table:
    """The table again, in the same memory."""
    return pa.ipc.open_stream(buffer).read_all()


def _column(data: pa.Buffer) -> pa.Array:
    """A column of one value, without a copy."""
    ends = pa.py_buffer(np.array([0, data.size], dtype=np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, data])
