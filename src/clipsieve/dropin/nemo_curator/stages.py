"""Stages: the base of all, the base of filters, and what filters of one's own override.

::

    @dataclass
    class FirstImageFilter(BaseInterleavedFilterStage):
        name: str = "first_image"

        def content_keep_mask(self, task, df):
            return (df["modality"] != "image") | (df["position"] == 0)
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from clipsieve.core.decode import decode
from clipsieve.core.fetch import ImageSource
from clipsieve.core.layout import Layout, Mask, invalid, parts
from clipsieve.dropin.nemo_curator.batch import InterleavedBatch, conforming, in_order, tidied, to_pandas
from clipsieve.dropin.nemo_curator.checks import FLAG, TEXT, check
from clipsieve.dropin.nemo_curator.resources import Resources
from clipsieve.errors import ImageError, UsageError

if TYPE_CHECKING:
    import pandas as pd

DOCUMENTS = Layout(kind="interleaved")


class ProcessingStage:
    """Anything that can be added to a pipeline."""

    name: str = "stage"
    resources: Resources = Resources()
    batch_size: int = 1

    def inputs(self) -> tuple[list[str], list[str]]:
        """Attributes and columns that a task must have."""
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        """Attributes and columns that a task has afterwards."""
        return ["data"], []

    def process(self, task: Any) -> Any:
        """The task that follows from another."""
        raise UsageError(f"{self.name} works in a Pipeline; only filters take a batch by themselves")

    def setup(self, worker_metadata: Any = None) -> None:
        """Called once before the first batch of a pipeline."""

    def teardown(self) -> None:
        """Called once after the last batch of a pipeline."""

    def with_(
        self, name: str | None = None, resources: Resources | None = None, batch_size: int | None = None
    ) -> ProcessingStage:
        """The stage with another name or other resources; ``batch_size`` changes nothing here."""
        stage = copy.copy(self)
        for key, value in (("name", name), ("resources", resources), ("batch_size", batch_size)):
            if value is not None:
                setattr(stage, key, value)
        return stage


@dataclass
class BaseInterleavedFilterStage(ProcessingStage, ABC):
    """A filter by a mask over rows; a subclass overrides ``content_keep_mask``.

    With ``drop_invalid_rows`` rows of an unknown modality, metadata not at position -1 and content at a negative
    position go as well.
    """

    drop_invalid_rows: bool = True
    name: str = "base_interleaved_filter"

    def __post_init__(self) -> None:
        own = [one.name for one in dataclasses.fields(self) if one.name not in ("drop_invalid_rows", "name")]

        def hint(said: str) -> str:
            return f"; say which parameter it is, such as {own[0]}={said}" if own else ""

        check(self, hint, drop_invalid_rows=FLAG, name=TEXT)

    @abstractmethod
    def content_keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        """Which rows stay, a boolean for each row of ``df`` by its index."""

    def keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        """``content_keep_mask`` without the invalid rows, when those go."""
        keep = self._aligned(self.content_keep_mask(task, df), df)
        return keep & ~invalid(rows_of(df[["position", "modality", "sample_id"]])) if self.drop_invalid_rows else keep

    def iter_materialized_bytes(
        self, task: InterleavedBatch, df: pd.DataFrame, row_mask: pd.Series
    ) -> Iterator[tuple[Any, bytes | None]]:
        """Index and encoded bytes of the rows that ``row_mask`` marks; None for one that is no image or has none.

        Of a file of many frames the row's own frame, as a TIFF of one.
        """
        chosen = df[row_mask]
        found = parts(rows_of(chosen), DOCUMENTS)
        sources = dict(zip(found.image_rows.tolist(), found.images, strict=True))
        for row, index in enumerate(chosen.index):
            yield index, _read(sources[row]) if row in sources else None

    def process(self, task: InterleavedBatch) -> InterleavedBatch:
        """What stays of a batch: sorted by document and position, positions counted anew, no metadata by itself."""
        if not task.num_items:
            return task
        rows = in_order(task.to_pyarrow())
        return task.with_rows(tidied(rows, self.rows_that_stay(task, rows))[0])

    def rows_that_stay(self, task: InterleavedBatch, rows: pa.Table) -> Mask:
        """Which of the ``rows`` of whole documents ``(rows,)`` stay by ``keep_mask``.

        That is asked when invalid rows are gone and positions are 0, 1, 2, ... Raises ``UsageError`` when it gives
        anything but a boolean for each row.
        """
        keep: Mask = ~invalid(rows) if self.drop_invalid_rows else np.ones(rows.num_rows, dtype=bool)
        rows, places = tidied(rows, keep)
        keep[:] = False
        if rows.num_rows:
            df = to_pandas(rows)
            mask = self.keep_mask(dataclasses.replace(task, data=rows), df)
            keep[places] = self._aligned(mask, df).to_numpy(dtype=bool)
        return keep

    def _aligned(self, keep: Any, df: pd.DataFrame) -> pd.Series:
        """A mask in the order of ``df``; where it says nothing of a row, the row goes."""
        import pandas as pd

        if not isinstance(keep, pd.Series) or pd.api.types.infer_dtype(keep, skipna=True) not in ("boolean", "empty"):
            told = f"a Series of {keep.dtype}" if isinstance(keep, pd.Series) else type(keep).__name__
            raise UsageError(f"{self.name}: the mask is {told}; give a boolean Series with the index of df")
        if not keep.index.equals(df.index):
            if not (len(keep) == len(df) and keep.index.is_unique and df.index.isin(keep.index).all()):
                raise UsageError(f"{self.name}: the mask has {len(keep)} rows, the table {len(df)}; keep df's index")
            keep = keep.loc[df.index]
        return keep.fillna(False).astype(bool)


def rows_of(df: pd.DataFrame) -> pa.Table:
    """The rows of a DataFrame in the columns and types of the schema, in their order."""
    return conforming(pa.Table.from_pandas(df, preserve_index=False))


def _read(source: ImageSource) -> bytes | None:
    try:
        data = source.read()
        return _frame(decode(data, frame=source.frame)) if source.frame else data
    except ImageError:
        return None


def _frame(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "TIFF")
    return file.getvalue()
