"""Encoded bytes of a shard's images between the moment they are fetched and the moment they are written."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa

from clipsieve.core.fetch import ImageSource
from clipsieve.core.lazy import LazyBytes
from clipsieve.errors import OutputError
from clipsieve.runfolder import remedy

if TYPE_CHECKING:
    from pathlib import Path

IN_MEMORY = 32 * 2**20
"""Bytes of a shard's fetched images that stay in memory; more go to a temporary file."""


class ByteStore:
    """Encoded bytes of images that the writer will need, kept once fetched; in memory or, when many, on disk.

    Several threads may put at the same time.
    """

    def __init__(self, folder: Path | None) -> None:
        place = None if folder is None else str(folder)
        self._where = tempfile.gettempdir() if folder is None else "the run folder"
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=place)  # noqa: SIM115 - see close
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        self._end = 0
        self._putting = threading.Lock()

    def put(self, key: tuple[int, int], data: bytes) -> None:
        """Keeps ``data`` under ``key``."""
        with self._putting:
            try:
                self._file.seek(self._end)
                self._file.write(data)
            except OSError as failure:
                raise OutputError(
                    f"cannot hold the bytes of images in {self._where}: {failure.strerror or failure}; "
                    f"{remedy(failure)}, then run the same command again to resume"
                ) from failure
            self._places[key] = (self._end, len(data))
            self._end += len(data)

    def get(self, key: tuple[int, int]) -> bytes | None:
        """The bytes kept under ``key``, or None."""
        if key not in self._places:
            return None
        start, size = self._places[key]
        self._file.seek(start)
        return self._file.read(size)

    def packed(self) -> tuple[bytes, Mapping[tuple[int, int], tuple[int, int]]]:
        """All that is kept, one after the other, and where each begins and how long it is: ``unpacked`` elsewhere."""
        self._file.seek(0)
        return self._file.read(self._end), self._places

    @classmethod
    def unpacked(cls, data: pa.Buffer, places: Mapping[tuple[int, int], tuple[int, int]]) -> ByteStore:
        """A store of what was ``packed``, in its memory."""
        store = cls.__new__(cls)
        store._file = pa.BufferReader(data)
        store._places = dict(places)
        store._end = data.size
        store._putting = threading.Lock()
        return store

    def close(self) -> None:
        """Frees the memory or the disk."""
        self._file.close()


@dataclass(frozen=True, kw_only=True)
class StoredBytes(LazyBytes):
    """Bytes of images read back one at a time, so that a writer never holds a whole shard of them."""

    store: ByteStore
    keys: Sequence[tuple[int, int]]
    sources: Sequence[ImageSource]
    """The images themselves, for those whose bytes are in the rows."""
    reread: LazyBytes | None = None
    """The same images from the source again, for those that an earlier run had fetched and this one had no need to."""

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes | None:
        """From the row, else from the store, else from the source again."""
        found = self.sources[index].inline or self.store.get(self.keys[index])
        return found if found or self.reread is None else self.reread[index]


class FileBytes(LazyBytes):
    """Bytes of images that lie one after the other in an open file, ``sizes`` long; 0 for one that is in its row."""

    def __init__(self, file: BinaryIO, sizes: Sequence[int], sources: Sequence[ImageSource]) -> None:
        self._file = file
        self._starts = np.cumsum([0, *sizes]).tolist()
        self._sources = sources

    def __len__(self) -> int:
        return len(self._sources)

    def read(self, index: int) -> bytes | None:
        """From the row, else from the file."""
        start, end = self._starts[index : index + 2]
        if start == end:
            return self._sources[index].inline
        self._file.seek(start)
        return self._file.read(end - start)
