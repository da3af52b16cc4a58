"""Cuts files into shards: whole samples, bounded in rows and bytes, evenly filled, and small files put together.

What is cut is described by ``Items``: consecutive samples (or stretches of them), each by where it stops, in the
reader's own unit, its rows and its bytes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.core.contracts import Piece, Shard
from clipsieve.errors import SourceError

Items: TypeAlias = npt.NDArray[np.int64]
"""``(n, 3)`` int64: stop, rows, bytes of consecutive samples, or of groups of them."""

LARGEST = 2**30
"""Bytes of the largest single sample: it is held in memory as a whole."""

NO_ITEMS: Items = np.zeros((0, 3), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a shard may grow; a single sample that is larger is a shard of its own."""

    rows: int = 1024
    bytes: int = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One file, cut: ``groups`` of its samples, the first of which begins at ``start``.

    ``apart`` keeps the file out of the shard of the files before it.
    """

    path: str
    groups: Items
    start: int = 0
    apart: bool = False


@dataclass
class Neighbours:
    """The documents of the files that may share a shard with the next one.

    Documents of one id in two files are two documents. In one shard nothing would tell them apart as soon as those
    between them are dropped.
    """

    limits: Limits
    _files: deque[tuple[int, Set[int]]] = field(default_factory=deque)

    def meet(self, groups: Items, ids: Set[int]) -> bool:
        """Whether the next file, of these ``groups`` and (hashed) ``ids``, has an id of a file before it."""
        rows = int(groups[:, 1].sum())
        if len(groups) > 1:  # a file of several groups shares no shard
            self._files.clear()
            return False
        while self._files and rows + sum(count for count, _ in self._files) > self.limits.rows:
            self._files.popleft()
        met = any(not ids.isdisjoint(others) for _, others in self._files)
        if met:
            self._files.clear()
        self._files.append((rows, ids))
        return met


def stable_hash(name: str) -> int:
    """64 bits of a document's id, the same in every process."""
    return int.from_bytes(
        hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest(), "little", signed=True
    )


def items(stops: npt.NDArray[np.int64], start: int, rows: npt.NDArray[np.int64] | int = 1) -> Items:
    """Samples that end at the byte offsets ``stops`` ``(n,)``, the first of which begins at ``start``."""
    return np.stack([stops, np.broadcast_to(rows, stops.shape), np.diff(stops, prepend=start)], axis=1)


def grouped(chunks: Iterable[Items], limits: Limits) -> Items:
    """Groups consecutive samples so that each group is as full as the limits allow, the last two evenly.

    Memory holds two groups and one chunk, however many samples there are.
    """
    full: list[Items] = []
    last, pending = NO_ITEMS, NO_ITEMS
    for chunk in chunks:
        pending = np.concatenate([pending, chunk])
        begin = 0
        while (count := _fitting(pending[begin : begin + limits.rows + 1], limits)) < len(pending) - begin:
            full += _total(last)
            last = pending[begin : begin + count]
            begin += count
        pending = pending[begin:]
    rest = np.concatenate([last, pending])
    split = _even_split(rest, limits) if len(last) else 0
    return np.concatenate([NO_ITEMS, *full, *_total(rest[:split]), *_total(rest[split:])])


def check_sizes(path: str, groups: Items, what: str) -> None:
    """Raises ``SourceError`` when a single sample of a file is too large to be held in memory."""
    largest = int(groups[:, 2].max(initial=0))
    if largest > LARGEST:
        raise SourceError(f"{path}: a {what} of {largest / 2**30:.1f} GiB, the limit is {LARGEST / 2**30:.0f} GiB")


def _fitting(samples: Items, limits: Limits) -> int:
    sums = np.cumsum(samples[:, 1:], axis=0)
    fits = (sums <= (limits.rows, limits.bytes)).all(axis=1)
    return max(1, int(np.count_nonzero(fits))) if len(samples) else 0


def _even_split(samples: Items, limits: Limits) -> int:
    """Where to cut so that the fuller side is as empty as possible, each within the limits or a single sample."""
    before = np.cumsum(samples[:, 1:], axis=0)
    after = before[-1] - before
    fits = np.stack([(side <= (limits.rows, limits.bytes)).all(axis=1) for side in (before, after)])
    fits[0, 0] = True
    fits[1, -2:] = True
    fuller = np.maximum(before, after) / (limits.rows, limits.bytes)
    return int(np.argmin(np.where(fits.all(axis=0), fuller.max(axis=1), np.inf))) + 1


def _total(samples: Items) -> list[Items]:
    if not len(samples):
        return []
    return [np.array([[samples[-1, 0], *samples[:, 1:].sum(axis=0)]], dtype=np.int64)]


def shards(cuts: Iterable[Cut], limits: Limits) -> tuple[Shard, ...]:
    """Numbers the shards of all files: a file of one group shares a shard with its neighbours as far as they fit."""
    return tuple(Shard(number=number, pieces=tuple(pieces)) for number, pieces in enumerate(_pieces(cuts, limits)))


def _pieces(cuts: Iterable[Cut], limits: Limits) -> Iterator[list[Piece]]:
    small = _SmallFiles()
    for cut in cuts:
        if len(cut.groups) > 1 or cut.apart:
            yield from small.flush(limits)
        if len(cut.groups) == 1:
            small.add(cut)
            continue
        start = cut.start
        for stop in cut.groups[:, 0].tolist():
            yield [Piece(path=cut.path, start=start, stop=stop)]
            start = stop
    yield from small.flush(limits)


@dataclass
class _SmallFiles:
    """Files of one group each that wait to be put together."""

    pieces: list[Piece] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, cut: Cut) -> None:
        stop, rows, size = cut.groups[0].tolist()
        self.pieces.append(Piece(path=cut.path, start=cut.start, stop=stop))
        self.sizes.append((rows, size))

    def flush(self, limits: Limits) -> Iterator[list[Piece]]:
        files = np.array([(i + 1, *size) for i, size in enumerate(self.sizes)], dtype=np.int64).reshape(-1, 3)
        begin = 0
        for end in grouped([files], limits)[:, 0].tolist():
            yield self.pieces[begin:end]
            begin = end
        self.pieces, self.sizes = [], []
