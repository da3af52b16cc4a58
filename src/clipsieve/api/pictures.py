"""The images of a run by the numbers of their ledger rows, read again from the source, to be looked at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from PIL import Image

from clipsieve.api.rows import captions_of
from clipsieve.api.runs import Run, kept_source
from clipsieve.core.batch import Batch
from clipsieve.core.threads import cores
from clipsieve.core.thumbnail import SIDE, thumbnail
from clipsieve.errors import RunFolderError, SourceError
from clipsieve.runfolder import RunFolder

REMEDIES = ("; give another --out", "; check the path, and quote a glob on the command line")
"""For who runs a recipe, and none for who only reads what came of it."""


@contextmanager
def finished_run(so: str = "") -> Iterator[None]:
    """Says of a run folder or source that is not what it was ``so`` in place of one of ``REMEDIES``."""
    try:
        yield
    except (RunFolderError, SourceError) as failure:
        for remedy in REMEDIES:
            if (told := str(failure)).endswith(remedy):
                raise type(failure)(told.removesuffix(remedy) + so) from failure
        raise


IN_MEMORY = 4
"""Shards whose rows stay in memory: at most some 256 MB, where the images stand in the rows."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as it is shown: small, with its caption; None and the ``error`` when it cannot be read any more."""

    thumbnail: Image.Image | None
    caption: str | None
    error: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Opened:
    """A shard read again; ``numbers`` gives for each of its ledger rows the image in ``batch``, -1 for none."""

    batch: Batch
    captions: list[str | None]
    numbers: npt.NDArray[np.int64]


class Pictures:
    """Reads images of a finished run by row of its whole ledger. Safe to use from several threads.

    Raises ``RunFolderError`` when the run is not finished or its source has changed.
    """

    def __init__(self, run: Run) -> None:
        self._folder = RunFolder(run.path)
        with finished_run():
            self._reader = kept_source(run)
            self._shards = self._folder.shards(self._reader.files(), run.shards())
        # The rows of a shard are neighbours in the ledger, in the order of the shards.
        self._ends = np.cumsum([self._folder.rows(shard.number) for shard in self._shards])
        self._recent: OrderedDict[int, _Opened] = OrderedDict()
        self._opening = Lock()

    def one(self, row: int, side: int = SIDE) -> Picture:
        """The image of ledger row ``row``, its longest side at most ``side`` pixels.

        Raises ``IndexError`` for a row that is not there or is of a sample without images.
        """
        if not 0 <= row < self._ends[-1]:
            raise IndexError(f"the ledger has no row {row}")
        place = int(np.searchsorted(self._ends, row, side="right"))
        opened = self._open(place)
        image = int(opened.numbers[row - self._ends[place]])  # counted from the end of the shard
        if image < 0:
            raise IndexError(f"row {row} of the ledger is a sample without images")
        one = opened.batch.one_image(image)
        pixels = one.pixels[0]
        return Picture(
            thumbnail=None if pixels is None else thumbnail(pixels, side),
            caption=opened.captions[image],
            error=one.errors.get(0),
        )

    def many(self, rows: Iterable[int], side: int = SIDE) -> Iterator[tuple[int, Picture]]:
        """The images of several rows, in the order of the ledger: each shard is read once."""
        ordered = sorted(set(rows))
        with ThreadPoolExecutor(cores()) as threads:
            yield from zip(ordered, threads.map(lambda row: self.one(row, side), ordered), strict=True)

    def _open(self, place: int) -> _Opened:
        with self._opening:
            opened = self._recent.pop(place, None)
            if opened is None:
                shard = self._shards[place]
                batch = Batch.from_rows(self._reader.read(shard), self._reader.layout)
                is_image = pc.is_valid(self._folder.part_table("ledger", shard.number, ["image"])["image"]).to_numpy()
                numbers = np.where(is_image, np.cumsum(is_image) - 1, -1)
                opened = _Opened(batch=batch, captions=captions_of(batch), numbers=numbers)
            self._recent[place] = opened
            while len(self._recent) > IN_MEMORY:
                self._recent.popitem(last=False)
            return opened
