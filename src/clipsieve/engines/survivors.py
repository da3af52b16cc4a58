"""What the first pass of a run kept of a shard, as the selections over the whole data set see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core import storage
from clipsieve.core.decide import Geometry, Verdicts
from clipsieve.core.layout import Mask
from clipsieve.core.spread import Spread, in_threads
from clipsieve.runfolder import RunFolder


def reading(folder: RunFolder, workers: Spread | None) -> Spread:
    """Who reads the parts of ``folder``: ``workers``, or else as many threads of this process as gain from it."""
    return workers or partial(in_threads, threads=storage.threads(folder.path))


class Selected(Protocol):
    """What a selection over the whole data set says of one shard; it can be pickled."""

    def apply(self, verdicts: Verdicts, of: Survivors) -> None:
        """Drops what was not selected, with its reasons."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Survivors:
    """What the first pass kept of a shard: its images by their rows in the ledger part, and its samples.

    ``table`` is the part, with the columns that a selection reads.
    """

    table: pa.Table
    image_rows: npt.NDArray[np.int64]
    sample_rows: npt.NDArray[np.int64]
    image_samples: npt.NDArray[np.int64]

    @classmethod
    def of(cls, table: pa.Table) -> Survivors:
        """Those of a part of the scores."""
        kept = pc.equal(table["sample_verdict"], "kept").to_numpy()
        samples = table["sample"].to_numpy()
        numbers, first = np.unique(samples[kept], return_index=True)
        images = pc.and_(pc.is_valid(table["image"]), pc.equal(table["verdict"], "kept"))
        rows = np.flatnonzero(images.to_numpy())
        return cls(
            table=table,
            image_rows=rows,
            sample_rows=np.flatnonzero(kept)[first],
            image_samples=np.searchsorted(numbers, samples[rows]),
        )

    def masks(self) -> tuple[Mask, Mask]:
        """Which of the shard's images, and which of its samples, they are."""
        is_image = pc.is_valid(self.table["image"]).to_numpy()
        images = np.zeros(len(is_image), dtype=bool)
        images[self.image_rows] = True
        numbers = self.table["sample"].to_numpy()
        samples = np.zeros(int(numbers.max()) + 1, dtype=bool)
        samples[numbers[self.sample_rows]] = True
        return images[is_image], samples

    def errors(self) -> dict[int, str]:
        """The failed images among them, which stay when ``on_error`` says so."""
        found = self.table["error"].take(pa.array(self.image_rows)).to_pylist()
        return {image: error for image, error in enumerate(found) if error is not None}

    def verdicts(self, selections: Iterable[Selected], has: Geometry | None = None) -> Verdicts:
        """The state after some selections; without ``has``, that of the images alone."""
        samples = len(self.sample_rows)
        bare = Geometry(
            samples=samples,
            image_samples=self.image_samples,
            pairs=np.zeros((0, 2), dtype=np.int64),
            has_text=np.zeros(samples, dtype=bool),
        )
        verdicts = Verdicts(has or bare)
        verdicts.exempt[list(self.errors())] = True
        for selection in selections:
            selection.apply(verdicts, self)
        return verdicts

    def compared(self, selections: Iterable[Selected]) -> npt.NDArray[np.int64]:
        """Which of the images are looked at for near duplicates: those that stay, unless they failed."""
        state = self.verdicts(selections)
        return np.flatnonzero(state.images & ~state.exempt)
