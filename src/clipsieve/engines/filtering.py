"""A user's own rules in Python, applied to a chunk after those of the recipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from clipsieve.core.decide import Verdicts
from clipsieve.core.layout import has_text_rows, kept_rows
from clipsieve.errors import UsageError

if TYPE_CHECKING:
    from clipsieve.core.batch import Batch
    from clipsieve.core.contracts import Filter
    from clipsieve.engines.bytestore import ByteStore
    from clipsieve.engines.chunk import Chunk


def apply_filter(one: Filter, chunk: Chunk, verdicts: Verdicts, store: ByteStore) -> None:
    """Drops the rows of ``chunk`` that ``one`` gives a reason for.

    Raises ``UsageError`` for what is no answer a row.
    """
    batch, parts = chunk.batch, chunk.batch.parts
    rows = np.flatnonzero(kept_rows(parts, verdicts.images, verdicts.samples, batch.layout))
    if not len(rows):
        return
    said = _answers(one, chunk.kept(verdicts, store), len(rows))
    reasons = {row: reason for row, reason in zip(rows.tolist(), said, strict=True) if reason is not None}
    images = np.flatnonzero(verdicts.images & np.isin(parts.image_rows, list(reasons)))
    of_images = [reasons[row] for row in parts.image_rows[images].tolist()]
    documents = batch.layout.kind == "interleaved"
    verdicts.drop_images(images, one.name, of_images, whole_sample=not documents)
    if not documents:  # a row is a sample, also one without images
        bare = [row for row in reasons if verdicts.samples[row]]
        verdicts.drop_samples(np.array(bare, dtype=np.int64), one.name, [reasons[row] for row in bare])
        return
    others = np.zeros(len(parts.row_samples), dtype=bool)
    others[list(reasons)] = True
    others[parts.image_rows] = False
    batch.parts = parts.without(others)
    held = has_text_rows(batch.table, batch.layout, batch.parts)
    touched = np.unique(parts.row_samples[others])
    verdicts.lose_content(touched[~held[touched]], one.name)


def _answers(one: Filter, batch: Batch, rows: int) -> list[str | None]:
    """What a filter says of each of the ``rows``."""
    said = one(batch)
    if isinstance(said, (str, bytes)) or not isinstance(said, Iterable):
        raise UsageError(
            f"filter {one.name} gave {type(said).__name__}; give a list with a reason or None for each row"
        )
    answers = list(said)
    if len(answers) != rows:
        raise UsageError(f"filter {one.name} gave {len(answers)} answers for {rows} rows; give one a row")
    odd = next((answer for answer in answers if answer is not None and not (isinstance(answer, str) and answer)), None)
    if odd is not None:
        raise UsageError(f"filter {one.name} gave {odd!r} for a row; give the reason why it goes, or None")
    return [answer and answer.encode(errors="replace").decode() for answer in answers]
