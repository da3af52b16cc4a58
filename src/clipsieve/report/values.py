"""The values of the scores of a ledger, each with the row it stands on and with what decided there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.decide import Unit
from clipsieve.core.ledger import BASE_SCHEMA, begins_sample, is_numeric, pair_rows

NOT_COMPUTED = b"not computed, an earlier rule had dropped the image"
"""Why a score is null, where its field does not say otherwise in its metadata."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """The computed values ``(n,)`` of one score, NaN where it cannot be scored.

    ``rows`` ``(n,)`` are the ledger rows they stand on: of a sample its first, of a pair that of its first image;
    ``others`` ``(n,)`` those of the second images. ``skipped`` values are null, for the reason ``why_skipped``.
    """

    name: str
    unit: Unit
    values: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    others: npt.NDArray[np.int64] | None
    skipped: int
    why_skipped: str


class Scores:
    """The numeric scores of a ledger; ``steps`` are all that drops images, in the order it decides."""

    def __init__(self, ledger: pa.Table, steps: Sequence[str] = ()) -> None:
        self.ledger = ledger
        self.steps = list(dict.fromkeys(steps))
        self.names = [field.name for field in list(ledger.schema)[len(BASE_SCHEMA) :] if is_numeric(field.type)]

    @cached_property
    def first_rows(self) -> npt.NDArray[np.int64]:
        """The first ledger row of each sample, ``(samples,)``."""
        return np.flatnonzero(begins_sample(self.ledger))

    @cached_property
    def decided(self) -> npt.NDArray[np.int64]:
        """For each ledger row the place in ``steps`` of what dropped it, ``(rows,)``.

        Their number stands for what was kept, -1 for what failed, or went with what failed.
        """
        rules = self.ledger["rule"].combine_chunks().dictionary_encode()
        known = {text: place for place, text in enumerate(self.steps)}
        places = np.array([*(known.get(text, -1) for text in rules.dictionary.to_pylist()), -1])
        decided: npt.NDArray[np.int64] = places[rules.indices.fill_null(-1).to_numpy()]
        decided[pc.equal(self.ledger["verdict"], "kept").to_numpy()] = len(self.steps)
        return decided

    def decided_of(self, of: Values) -> npt.NDArray[np.int64]:
        """``decided`` for each value, ``(n,)``; a sample got as far as the furthest of its images."""
        found: npt.NDArray[np.int64] = self.decided[of.rows]
        if of.unit != "image":
            samples = np.maximum.reduceat(self.decided, self.first_rows)
            found = samples[np.searchsorted(self.first_rows, of.rows, side="right") - 1]
        return found

    def first_rows_of(self, rows: Sequence[int]) -> list[int]:
        """For each row the first of its sample."""
        found: list[int] = self.first_rows[np.searchsorted(self.first_rows, rows, side="right") - 1].tolist()
        return found

    def images_of(self, row: int) -> list[int]:
        """The rows of the images of the sample whose first row is ``row``."""
        place = int(np.searchsorted(self.first_rows, row, side="right"))
        end = int(self.first_rows[place]) if place < len(self.first_rows) else self.ledger.num_rows
        return [] if self.ledger["image"][row].as_py() is None else list(range(row, end))

    def of(self, name: str) -> Values:
        """The values of one score."""
        field = self.ledger.schema.field(name)
        about = field.metadata or {}
        told = about.get(b"unit")
        unit: Unit = "sample" if told == b"sample" else "pair" if told == b"pair" else "image"
        column, others = self.ledger[name].combine_chunks(), None
        rows = np.arange(len(column))
        if unit == "sample":
            rows = self.first_rows
            column = column.take(pa.array(rows))
        elif pa.types.is_list(column.type):
            rows, others = pair_rows(column)
            column = column.flatten()
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        # An image has a value of that kind, a sample without images has not.
        bare = self.ledger["image"].null_count if told == b"image" else 0
        return Values(
            name=name,
            unit=unit,
            values=column.to_numpy(zero_copy_only=False)[valid],
            rows=rows[valid],
            others=None if others is None else others[valid],
            skipped=column.null_count - bare,
            why_skipped=about.get(b"null", NOT_COMPUTED).decode(),
        )
