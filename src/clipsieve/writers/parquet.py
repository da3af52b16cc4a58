"""Parquet: the table as it is, types, nulls and schema metadata included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.core.batch import Batch
from clipsieve.core.layout import LayoutKind
from clipsieve.core.storage import opened
from clipsieve.writers.cells import visible

ROW_GROUP_BYTES = 64 * 2**20
"""Bytes of a row group, on average: enough to read at speed, little enough to hold many at once."""


@dataclass(frozen=True, kw_only=True)
class ParquetWriter:
    """Writes rows of any layout as Parquet, zstd-compressed (as quick as none on images, and small on text)."""

    suffix: ClassVar[str] = ".parquet"
    needs_bytes: ClassVar[bool] = False
    layouts: ClassVar[tuple[LayoutKind, ...]] = ("captions", "lists", "interleaved")

    def write(self, batch: Batch, file: BinaryIO, name: str) -> None:
        """One Parquet file; ``name`` is not used."""
        # In one piece, since pages end where pieces do: how the rows were cut on the way may not show.
        table = visible(batch.table).combine_chunks()
        rows = max(1, ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes))
        pq.write_table(table, file, compression="zstd", row_group_size=rows)

    def join(self, parts: Sequence[Path], file: BinaryIO) -> None:
        """The row groups of all files; without files, a table without columns."""
        schema = pa.schema([])
        for part in parts[:1]:
            with opened(part) as stored:
                schema = pq.read_schema(stored)
        with pq.ParquetWriter(file, schema, compression="zstd") as whole:
            for part in parts:
                with opened(part) as stored:
                    table = pq.ParquetFile(stored)
                    for group in range(table.num_row_groups):
                        whole.write_table(table.read_row_group(group))
