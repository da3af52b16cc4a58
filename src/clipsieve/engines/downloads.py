"""Images by URL while a run goes on: fetched ahead of the threads that decode them and, where the recipe says so,
kept beside the run."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from clipsieve.core.contracts import Reader, Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.fetch import ImageSource, as_kind
from clipsieve.core.kept import GROUP, SCHEMA, forget, kept_rows
from clipsieve.core.layout import Layout
from clipsieve.core.spread import Spread, in_threads
from clipsieve.core.storage import exists
from clipsieve.core.timing import StageTimes
from clipsieve.core.urls import FetchPolicy, downloads, read_url
from clipsieve.errors import ImageError
from clipsieve.runfolder import RunFolder, atomic

if TYPE_CHECKING:
    from clipsieve.core.batch import Batch
    from clipsieve.core.downloads import Announcement, Downloader
    from clipsieve.engines.prepare import ShardInWork

SHARDS_AHEAD = 2
"""Shards that are being fetched while those before them are written into their files, so that the slowest image of
one does not keep the others waiting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnouncedImage(ImageSource):
    """An image by URL that a run has announced: who reads it waits no longer than that run goes on."""

    announcement: Announcement

    def _read_url(self, url: str) -> bytes:
        assert self.policy is not None
        return read_url(url, self.policy, self.announcement)


class Downloads:
    """Announces the images by URL of shards as they come, and lets go of them when the run does.

    A context manager around all that reads the images. ``folder`` is the run's, None where there is none. With
    ``stays_open`` the process's ``Downloader`` is left to what comes afterwards.
    """

    def __init__(
        self, policy: FetchPolicy | None, folder: RunFolder | None, times: StageTimes, *, stays_open: bool = False
    ) -> None:
        self._policy = policy
        self._folder = folder
        self._times = times
        self._stays_open = stays_open
        self._keeps = policy is not None and policy.keep and folder is not None
        self._announced: dict[int, Announcement] = {}
        self._stopped = threading.Event()
        self._held = ExitStack()
        self._started: Downloader | None = None

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def stop(self) -> None:
        """Lets go of all that is announced: who waits for an image of this run gets none."""
        self._stopped.set()
        if self._started is not None:
            for announcement in list(self._announced.values()):
                self._started.abandon(announcement)

    def finished(self, shard: int) -> None:
        """Lets go of what was announced of a shard and is still there: nobody will read it."""
        announcement = self._announced.pop(shard, None)
        if announcement is not None and self._started is not None:
            self._started.drop(announcement)

    def ahead(self, batches: Iterator[tuple[ShardInWork, Batch]]) -> Iterator[tuple[ShardInWork, Batch]]:
        """The same shards, with their images on the way or, where they are kept, in a file."""
        waiting: deque[tuple[ShardInWork, Batch, Sequence[str]]] = deque()
        for work, batch in batches:
            waiting.append((work, batch, self._announce(work.shard.number, batch)))
            if len(waiting) > (SHARDS_AHEAD if self._keeps else 0):
                yield self._ready(*waiting.popleft())
        while waiting:
            yield self._ready(*waiting.popleft())

    def _announce(self, shard: int, batch: Batch) -> Sequence[str]:
        """The URLs that will be read of a shard; none where they are in a file."""
        if self._policy is None or (self._folder is not None and exists(self._folder.fetched(shard))):
            return ()
        urls = [image.path for image in batch.parts.images if image.by_url and image.path is not None]
        if self._keeps:
            urls = list(dict.fromkeys(urls))
        if urls:
            downloader = self._downloader(self._policy)
            announcement = self._announced[shard] = downloader.prefetch(urls)
            if self._stopped.is_set():  # which may not have seen it
                downloader.abandon(announcement)
            if not self._keeps:
                images = [
                    as_kind(image, AnnouncedImage, announcement=announcement) if image.by_url else image
                    for image in batch.parts.images
                ]
                batch.parts = replace(batch.parts, images=images)
        return urls

    def _downloader(self, policy: FetchPolicy) -> Downloader:
        if self._started is None:
            self._started = self._held.enter_context(downloads(policy, then_close=not self._stays_open))
        return self._started

    def _ready(self, work: ShardInWork, batch: Batch, urls: Sequence[str]) -> tuple[ShardInWork, Batch]:
        if self._policy is None or self._folder is None:
            return work, batch
        shard = work.shard.number
        if self._keeps and urls:
            with self._times.of("fetch"):
                self._keep(shard, urls)
        work.rows = with_kept(work.rows, shard, [self._folder])
        if work.rows.kept is not None:
            batch.parts = batch.parts.fetched(self._policy, work.rows.kept)
        return work, batch

    def _keep(self, shard: int, urls: Sequence[str]) -> None:
        """Writes the images of a shard into its file, a few megabytes at a time."""
        assert self._folder is not None
        assert self._started is not None
        announcement = self._announced[shard]
        with atomic(self._folder.fetched(shard)) as file, pq.ParquetWriter(file, SCHEMA, compression="none") as writer:
            group: list[tuple[str, bytes | None, str | None]] = []
            size = 0
            for url in urls:
                try:
                    group.append((url, self._started.read(url, announcement), None))
                except ImageError as failure:
                    group.append((url, None, str(failure)))
                size += len(group[-1][1] or b"")
                if size >= GROUP:
                    writer.write_table(kept_rows(*zip(*group, strict=True)))
                    group, size = [], 0
            if group:
                writer.write_table(kept_rows(*zip(*group, strict=True)))


def sharing_requests(reader: Reader, processes: int) -> Reader:
    """``reader`` for each of so many processes that fetch at the same time, the recipe's requests divided among them.

    Each may send one at least, to a host and in all.
    """
    policy = reader.layout.fetch
    if policy is None:
        return reader
    each = {name: max(1, getattr(policy, name) // processes) for name in ("concurrency", "per_host")}
    shared = copy(reader)
    shared.layout = replace(reader.layout, fetch=policy.model_copy(update=each))
    return shared


def with_kept(rows: Rows, shard: int, folders: Sequence[RunFolder]) -> Rows:
    """Rows with the file of what was fetched of their images, where one of ``folders`` has one."""
    found = (path for folder in folders if exists(path := folder.fetched(shard)))
    kept = next(found, None)
    if kept is None:
        return rows
    forget(str(kept))
    return replace(rows, kept=str(kept))


class KeptReader:
    """A ``Reader`` of another one's source, whose images by URL are taken from the run folders that have kept them."""

    def __init__(self, reader: Reader, folders: Sequence[RunFolder]) -> None:
        self.reader = reader
        self.layout: Layout = reader.layout
        self._folders = folders

    def files(self) -> Sequence[SourceFile]:
        """Those of the source."""
        return self.reader.files()

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
        """Those of the source."""
        return self.reader.shards(spread)

    def read(self, shard: Shard) -> Rows:
        """The rows of a shard, with the file of its images where there is one."""
        return with_kept(self.reader.read(shard), shard.number, self._folders)

    def count(self, spread: Spread = in_threads) -> SourceCounts:
        """That of the source."""
        return self.reader.count(spread)
