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


def in_order(table: pa.Table) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Rows in the columns of the schema, sorted by document and position, and where each was before, ``(rows,)``."""
    table = conformed(table, interleaved_schema(table.schema), "the batch")
    order = pc.sort_indices(table, sort_keys=[("sample_id", "ascending"), ("position", "ascending")])
    return table.take(order).combine_chunks(), order.to_numpy().astype(np.int64)


def kept_rows(table: pa.Table, keep: Mask) -> pa.Table:
    """What ``keep`` ``(rows,)`` leaves of sorted rows: positions counted anew, no document without content."""
    samples = sample_runs(table.column("sample_id").combine_chunks())
    held = np.bincount(samples[keep & has_content(table)], minlength=len(samples)) > 0
    keep = keep & held[samples]
    # Sorted again: content that was at a negative position, and stays, is behind metadata now.
    return in_order(renumbered(table.filter(pa.array(keep)), samples[keep]))[0]


def has_content(table: pa.Table) -> Mask:
    """Which rows are anything but metadata, ``(rows,)``."""
    metadata = pc.fill_null(pc.equal(table.column("modality"), "metadata"), False)
    content: Mask = ~metadata.to_numpy(zero_copy_only=False)
    return content
