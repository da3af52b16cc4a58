"""The first samples of a source, for a trial run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from clipsieve.core.contracts import Reader, Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.layout import Parts, parts
from clipsieve.core.spread import Spread, in_threads


class FirstSamples:
    """A ``Reader`` of the first ``limit`` samples of another one."""

    def __init__(self, reader: Reader, limit: int) -> None:
        self.reader = reader
        self.layout = reader.layout
        self.limit = limit

    def files(self) -> Sequence[SourceFile]:
        """The files of the whole source."""
        return self.reader.files()

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
        """The shards that hold the first samples."""
        return [shard for shard, _, _ in self._first]

    def read(self, shard: Shard) -> Rows:
        """The rows of a shard, cut after the last sample wanted."""
        before = {found.number: samples for found, samples, _ in self._first}[shard.number]
        return self._cut(self.reader.read(shard), before)

    def count(self, spread: Spread = in_threads) -> SourceCounts:
        """The samples wanted, or fewer when the source has fewer, and their images."""
        whole = self.reader.count(spread)
        return SourceCounts(samples=min(self.limit, whole.samples), images=sum(images for *_, images in self._first))

    @cached_property
    def _first(self) -> Sequence[tuple[Shard, int, int]]:
        """Shards, the samples before each, and the images wanted of each."""
        return list(self._walk())

    def _walk(self) -> Iterator[tuple[Shard, int, int]]:
        samples = 0
        for shard in self.reader.shards():
            if samples >= self.limit:
                return
            rows = self.reader.read(shard)
            found = self._parts(rows)
            wanted = self.limit - samples
            yield shard, samples, int((found.image_samples < wanted).sum())
            samples += len(found.sample_ids)

    def _cut(self, rows: Rows, before: int) -> Rows:
        found = self._parts(rows)
        wanted = self.limit - before
        if wanted >= len(found.sample_ids):
            return rows
        stop = int(found.sample_rows[wanted])
        return Rows(
            table=rows.table.slice(0, stop),
            origins=tuple((start, path) for start, path in rows.origins if start < stop),
            errors={row: error for row, error in rows.errors.items() if row < stop},
        )

    def _parts(self, rows: Rows) -> Parts:
        return parts(rows.table, self.layout, rows.origins, rows.errors)
