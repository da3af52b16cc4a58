"""What one recipe cannot say, as filters in Python behind its rules: ``clipsieve.Filter``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipsieve.core.batch import Batch
from clipsieve.core.layout import embedded
from clipsieve.dropin.nemo_curator.batch import InterleavedBatch, has_content
from clipsieve.dropin.nemo_curator.fused import Fused
from clipsieve.dropin.nemo_curator.stages import BaseInterleavedFilterStage


class OwnStage:
    """A stage of a user's own, by its mask."""

    def __init__(self, stage: BaseInterleavedFilterStage, dataset_name: str) -> None:
        self.stage = stage
        self.name = stage.name
        self._dataset_name = dataset_name

    def __call__(self, batch: Batch) -> Sequence[str | None]:
        """A reason for each row that the mask leaves out."""
        if not batch.table.num_rows:
            return []
        rows = embedded(batch.table, batch.parts, batch.bytes, batch.errors)
        keep = self.stage.rows_that_stay(InterleavedBatch(dataset_name=self._dataset_name), rows)
        return [None if stays else f"dropped by {self.name}" for stays in keep.tolist()]


class LaterStages:
    """Published filters behind one of a user's own, or such as do not go into one recipe with those before."""

    def __init__(self, fused: Fused) -> None:
        self.fused = fused
        self.name = ", ".join(stage.name for stage in fused.stages)
        self.needs_bytes = fused.reads_images

    def __call__(self, batch: Batch) -> Sequence[str | None]:
        """A reason for each row that goes."""
        rows = batch.table
        if self.needs_bytes:
            rows = embedded(rows, batch.parts, batch.bytes, batch.errors)
        return self.fused.reasons(rows)


class Unread:
    """What a writer does about images that cannot be read when stages of a user's own were to see them first: a
    policy of ``ON_MATERIALIZE_ERROR``."""

    name = "on_materialize_error"
    needs_bytes = False

    def __init__(self, policy: str) -> None:
        self.policy = policy

    def __call__(self, batch: Batch) -> Sequence[str | None]:
        """A reason for each row that goes. Raises ``RuntimeError`` for the policy ``error``."""
        parts, reasons = batch.parts, [None] * batch.table.num_rows
        if batch.errors and self.policy == "error":
            image = min(batch.errors)
            name = parts.images[image].reference or f"an image of {parts.sample_ids[parts.image_samples[image]]}"
            raise materialization_failed(f"{name}: {batch.errors[image]}")
        if self.policy == "drop_row":
            of_rows = {int(parts.image_rows[image]): error for image, error in batch.errors.items()}
            return [of_rows.get(row) for row in range(len(reasons))]
        if self.policy == "drop_sample":
            of_samples = {int(parts.image_samples[image]): error for image, error in batch.errors.items()}
            return [of_samples.get(sample) for sample in parts.row_samples.tolist()]
        return reasons


def materialization_failed(first: str) -> RuntimeError:
    """The error of the policy ``error``."""
    told = "fix it, or choose on_materialize_error warn, drop_row or drop_sample"
    return RuntimeError(f"Materialization failed. First: {first}; {told}")


class Orphans:
    """Metadata of documents that hold nothing else, which a filter leaves out even when it leaves invalid rows in."""

    name = "metadata alone"
    needs_bytes = False

    def __call__(self, batch: Batch) -> Sequence[str | None]:
        """A reason for each row of a document without content."""
        samples = batch.parts.row_samples
        held = np.bincount(samples[has_content(batch.table)], minlength=batch.samples) > 0
        return [None if there else "no content" for there in held[samples].tolist()]
