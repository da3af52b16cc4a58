"""What is compared of the images that reach dedup: looked up shard by shard, put together as arrays.

In memory, an image has 4 bytes for its row, 8 for its unit, 8 for the number of its ledger row, 8 for its name's place,
8 for the order where there is one, and what is compared: 16 bytes for a vector (``dedup.digests``), 36 for a content
hash, 8 for a perceptual one. Names are in an unnamed file. With what the search needs (``dedup.distributed``) it is
about 250 bytes in all for an image that is compared by its vector.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve import dedup
from clipsieve.core.ledger import image_names
from clipsieve.engines.partition_files import ImageVectors, Rows, vectors_of
from clipsieve.engines.survivors import Selected, Survivors
from clipsieve.runfolder import RunFolder

if TYPE_CHECKING:
    from clipsieve.plan import BoundDedup

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The images of a shard that are compared, ``(k,)`` each: their ``rows`` in its ledger part and their ``samples``
    among the survivors, of which there are ``all_rows`` and ``all_samples``; ``keys`` order them, the highest first.

    ``content`` is what is compared: hashes, or digests of vectors; None where vectors are read by who asks.
    """

    rows: Rows
    samples: npt.NDArray[np.int32]
    all_rows: int
    all_samples: int
    names: pa.Array
    keys: npt.NDArray[np.float64] | None
    content: pa.Array | dedup.Digests | None


@dataclass(frozen=True, kw_only=True)
class CountCompared:
    """Work: counts the images of a shard that are compared, from these ``columns``."""

    folder: RunFolder
    columns: tuple[str, ...]

    def __call__(self, shard: tuple[int, Sequence[Selected]]) -> int:
        number, selections = shard
        return len(Survivors.of(self.folder.part_table("scores", number, self.columns)).compared(selections))


@dataclass(frozen=True, kw_only=True)
class ReadCompared:
    """Work: looks up the images of a shard that are compared."""

    by: BoundDedup
    folder: RunFolder
    columns: tuple[str, ...]
    digests: bool

    def __call__(self, shard: tuple[int, Sequence[Selected]]) -> Part:
        """``shard`` is the number of one, and the selections that come before dedup."""
        number, selections = shard
        of = Survivors.of(self.folder.part_table("scores", number, self.columns))
        images = of.compared(selections)
        rows = of.image_rows[images]
        table = of.table.take(pa.array(rows)).append_column("shard", pa.array(np.full(len(rows), number)))
        return Part(
            rows=rows.astype(np.int32),
            samples=of.image_samples[images].astype(np.int32),
            all_rows=of.table.num_rows,
            all_samples=len(of.sample_rows),
            names=image_names(table),
            keys=self._keys(table),
            content=self._content(number, rows, table),
        )

    def _keys(self, table: pa.Table) -> npt.NDArray[np.float64] | None:
        if not self.by.preference:
            return None
        values = [np.asarray(table[name].to_numpy(), dtype=np.float64) for name in self.by.preference]
        product: npt.NDArray[np.float64] = np.prod(values, axis=0)
        return np.nan_to_num(product, nan=-np.inf)

    def _content(self, number: int, rows: Numbers, table: pa.Table) -> pa.Array | dedup.Digests | None:
        if self.by.column is not None:
            return compact(table[self.by.column], self.by.by.method)
        return dedup.digests(vectors_of(self.folder, number)[rows]) if self.digests else None


def compact(hashes: pa.ChunkedArray | pa.Array, method: str) -> pa.Array:
    """Hashes of hexadecimal digits as small as they are: numbers for ``perceptual``, else bytes."""
    if method == "perceptual":
        return pa.array([None if text is None else int(text, 16) for text in hashes.to_pylist()], pa.uint64())
    return pa.array([None if text is None else bytes.fromhex(text) for text in hashes.to_pylist()], pa.binary())


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """The images that are compared, in input order: ``units`` and ``numbers``, each ``(n,)``, and their ``names``.

    ``numbers`` count the rows of the whole ledger; ``rows`` gives, for each of ``shards``, those of its part.
    """

    by: BoundDedup
    shards: Sequence[int]
    rows: Sequence[Rows]
    units: Numbers
    numbers: Numbers
    keys: npt.NDArray[np.float64] | None
    content: pa.ChunkedArray | dedup.Digests | None
    names: Names

    @classmethod
    def gather(cls, by: BoundDedup, shards: Sequence[int], parts: Iterable[Part], names: Names) -> Compared:
        """From all ``shards``, in order."""
        found = []
        units, numbers = [], []
        first_row = first_sample = 0
        for part in parts:
            names.add(part.names)
            units.append(part.samples.astype(np.int64) + first_sample)
            numbers.append(part.rows.astype(np.int64) + first_row)
            first_row += part.all_rows
            first_sample += part.all_samples
            # Copies: what a cluster hands out are views of its memory, which would keep all that came along with them.
            keys_of = None if part.keys is None else part.keys.copy()
            found.append((part.rows.copy(), keys_of, _copy(part.content)))
        rows, keys, content = zip(*found, strict=True)
        every = np.concatenate(units)
        return cls(
            by=by,
            shards=shards,
            rows=rows,
            units=every if by.unit == "sample" else np.arange(len(every)),
            numbers=np.concatenate(numbers),
            keys=np.concatenate(keys) if by.preference else None,
            content=_joined(content),
            names=names,
        )

    def __len__(self) -> int:
        return len(self.units)

    def order(self) -> Numbers | None:
        """The order of preference: images of a sample together, the sample by the best of them, ties by input; None
        for that of the input."""
        if self.keys is None:
            return None
        best = np.full(int(self.units.max(initial=-1)) + 1, -np.inf)
        np.maximum.at(best, self.units, self.keys)
        return np.lexsort((self.units, -best[self.units]))

    def vectors(self, folder: RunFolder) -> ImageVectors:
        """Where their vectors are."""
        return ImageVectors(folder=folder, shards=self.shards, rows=self.rows)


def _copy(content: pa.Array | dedup.Digests | None) -> pa.Array | dedup.Digests | None:
    if isinstance(content, pa.Array):
        return content.copy_to(pa.default_cpu_memory_manager())
    return None if content is None else content.copy()


def _joined(content: Sequence[pa.Array | dedup.Digests | None]) -> pa.ChunkedArray | dedup.Digests | None:
    hashes = [part for part in content if isinstance(part, pa.Array)]
    digests = [part for part in content if isinstance(part, np.ndarray)]
    return pa.chunked_array(hashes) if hashes else np.concatenate(digests) if digests else None


class Names:
    """What people call the images, in an unnamed file in ``folder``: of a billion they are too much for memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as its reader
        self._lengths: list[npt.NDArray[np.int32]] = []
        self._every: pa.LargeStringArray | None = None

    def add(self, names: pa.Array) -> None:
        """Adds some behind the others. Raises ``ValueError`` once some were taken, as they are many as then."""
        if self._every is not None:
            raise ValueError("names are added before any of them is taken")
        texts = names.cast(pa.binary())
        self._lengths.append(np.asarray(pc.binary_length(texts).to_numpy(zero_copy_only=False), dtype=np.int32))
        self._file.write(b"".join(texts.to_pylist()))

    def take(self, places: Numbers) -> pa.Array:
        """Those at ``places``, null for -1."""
        if self._every is None:
            self._file.flush()
            ends = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *self._lengths]), dtype=np.int64)
            texts = np.memmap(self._file, np.uint8, "r") if ends[-1] else np.zeros(0, dtype=np.uint8)
            buffers = (len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(texts))
            self._every = pa.LargeStringArray.from_buffers(*buffers)
            self._lengths = []
        return self._every.take(pa.array(places, mask=places < 0)).cast(pa.string())
