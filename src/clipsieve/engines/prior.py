"""What an earlier run found of the same source, so that other rules go on from there: scores, errors and vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.batch import Batch
from clipsieve.core.ledger import Score, begins_sample
from clipsieve.errors import RunFolderError
from clipsieve.scorers import COLUMNS, DATASET_COLUMNS

if TYPE_CHECKING:
    from clipsieve.core.contracts import Vectors


SCORES = {*COLUMNS, *DATASET_COLUMNS}
"""Columns of a ledger that hold what was computed, not what was decided by it."""

CARRIED = {b"carried": b"from an earlier run"}
"""Metadata of a column that the run itself had no need of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """Of some whole samples of a shard: ``table`` holds their ledger rows, ``images`` and ``texts`` the vectors of
    those rows, ``(rows, dim)``, where the run kept them."""

    table: pa.Table
    images: Vectors | None
    texts: Vectors | None

    def of_samples(self, start: int, stop: int) -> Prior:
        """That of samples ``start`` to ``stop`` of the shard."""
        first, last = np.searchsorted(self.table["sample"].to_numpy(), [start, stop]).tolist()
        cut = [None if vectors is None else vectors[first:last] for vectors in (self.images, self.texts)]
        return Prior(table=self.table.slice(first, last - first), images=cut[0], texts=cut[1])

    def check(self, batch: Batch) -> None:
        """Raises ``RunFolderError`` when it is not of the samples of ``batch``."""
        if (len(self._image_rows), len(self._sample_rows)) != (batch.images, batch.samples):
            raise RunFolderError("the ledger of the run does not go with its source: the run folder is damaged")

    @property
    def errors(self) -> Mapping[int, str]:
        """Why images failed."""
        found = self.table["error"].take(pa.array(self._image_rows)).to_pylist()
        return {image: error for image, error in enumerate(found) if error is not None}

    def give(self, name: str, score: Score) -> None:
        """Puts what is known of the score ``name`` into ``score``."""
        if name not in self.table.column_names:
            return
        column = self.table[name].combine_chunks()
        if score.unit == "pair":
            column = column.flatten()
        else:
            column = column.take(pa.array(self._sample_rows if score.unit == "sample" else self._image_rows))
        known = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
        score.put(known, column.take(pa.array(known)))

    @cached_property
    def sizes(self) -> npt.NDArray[np.float64]:
        """How many bytes each image had, ``(images,)``, NaN where that is not known."""
        if "file_bytes" not in self.table.column_names:
            return np.full(len(self._image_rows), np.nan)
        found: npt.NDArray[np.float64] = self.table["file_bytes"].to_numpy()[self._image_rows]
        return found

    @cached_property
    def hashes(self) -> npt.NDArray[np.object_]:
        """The ``content_hash`` of each image, ``(images,)``, None where that is not known."""
        if "content_hash" not in self.table.column_names:
            return np.full(len(self._image_rows), None, dtype=object)
        found = self.table["content_hash"].take(pa.array(self._image_rows)).to_pylist()
        return np.array(found, dtype=object)

    def carry(self, table: pa.Table) -> pa.Table:
        """Ledger rows with the scores of these that they do not have: nothing that was computed once is lost."""
        for field, column in zip(self.table.schema, self.table.columns, strict=True):
            if field.name in SCORES and field.name not in table.column_names:
                table = table.append_column(field.with_metadata({**field.metadata, **CARRIED}), column)
        return table

    @cached_property
    def image_vectors(self) -> Vectors | None:
        """Those of the images, ``(images, dim)``, NaN where there is none."""
        return None if self.images is None else self.images[self._image_rows]

    @cached_property
    def best_text_vectors(self) -> Vectors | None:
        """The vector of each image's best text, in the same places."""
        return None if self.texts is None else self.texts[self._image_rows]

    @cached_property
    def _image_rows(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(pc.is_valid(self.table["image"]).to_numpy())

    @cached_property
    def _sample_rows(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(begins_sample(self.table))
