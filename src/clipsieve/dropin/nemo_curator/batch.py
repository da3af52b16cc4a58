"""What stages pass on: rows of interleaved documents as Arrow or pandas, and the files that a writer has made.

Rows are in the columns of ``clipsieve.core.layout.INTERLEAVED_SCHEMA``, others beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.layout import INTERLEAVED_SCHEMA, Mask, renumbered, sample_runs
from clipsieve.errors import UsageError
from clipsieve.readers.tables import conformed, interleaved_schema

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("sample_id", "position", "modality")
"""The columns without which rows are no documents."""

_ORDER = [("sample_id", "ascending"), ("position", "ascending")]


@dataclass
class InterleavedBatch:
    """Rows of whole documents, ``data``, as an Arrow table or a pandas DataFrame."""

    task_id: str = ""
    dataset_name: str = ""
    data: pa.Table | pd.DataFrame = field(default_factory=INTERLEAVED_SCHEMA.empty_table)
    _metadata: dict[str, Any] = field(default_factory=dict)
    _stage_perf: list[Any] = field(default_factory=list)

    def to_pyarrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self.data if isinstance(self.data, pa.Table) else pa.Table.from_pandas(self.data, preserve_index=False)

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        return to_pandas(self.data) if isinstance(self.data, pa.Table) else self.data

    @property
    def num_items(self) -> int:
        """Number of rows."""
        return len(self.data)

    def with_rows(self, rows: pa.Table) -> InterleavedBatch:
        """The batch of other rows, in the kind that these are."""
        return replace(self, data=rows if isinstance(self.data, pa.Table) else to_pandas(rows))


@dataclass
class FileGroupTask:
    """Paths of files, ``data``."""

    task_id: str = ""
    dataset_name: str = ""
    data: list[str] = field(default_factory=list)
    _metadata: dict[str, Any] = field(default_factory=dict)
    _stage_perf: list[Any] = field(default_factory=list)

    @property
    def num_items(self) -> int:
        """Number of files."""
        return len(self.data)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A DataFrame of a table. Raises ``UsageError`` without pandas."""
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise UsageError("pandas is not installed; pip install 'clipsieve[dropin]'") from None
    return table.to_pandas()


def conforming(table: pa.Table) -> pa.Table:
    """Rows in the columns and types of the schema. Raises ``UsageError`` without a column that documents need."""
    missing = next((name for name in NEEDED if name not in table.column_names), None)
    if missing is not None:
        raise UsageError(f"the batch has no column {missing!r}; rows of documents have {', '.join(NEEDED)}")
    return conformed(table, interleaved_schema(table.schema), "the batch")


def in_order(table: pa.Table) -> pa.Table:
    """Rows in the columns of the schema, sorted by document and position."""
    return conforming(table).sort_by(_ORDER).combine_chunks()


def tidied(table: pa.Table, keep: Mask) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """What ``keep`` ``(rows,)`` leaves of documents, and which rows that are: no document without content, positions
    counted anew, sorted."""
    samples = sample_runs(table.column("sample_id").combine_chunks())
    held = np.bincount(samples[keep & has_content(table)], minlength=len(samples)) > 0
    rows = np.flatnonzero(keep & held[samples])
    left = renumbered(table.take(pa.array(rows)), samples[rows])
    order = pc.sort_indices(left, sort_keys=_ORDER)
    return left.take(order).combine_chunks(), rows[order.to_numpy()]


def has_content(table: pa.Table) -> Mask:
    """Which rows are content that keeps a document, ``(rows,)``: metadata is none, nor is an unknown modality."""
    known = pc.is_in(table.column("modality"), pa.array(["text", "image", "table"]))
    content: Mask = known.to_numpy()
    return content
