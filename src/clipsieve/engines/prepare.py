"""Everything before the model: shards read ahead, cut into chunks, and their images worked on by a pool of threads.

What comes out is chunks in order with their inputs for the model. It needs no weights, and may run on another machine
than the model does.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from clipsieve.core.batch import Batch
from clipsieve.core.timing import StageTimes
from clipsieve.engines.bytestore import ByteStore
from clipsieve.engines.chunk import Chunk, ImageWork, Prepare, chunks
from clipsieve.engines.downloads import Downloads
from clipsieve.engines.prefetch import Prefetch

if TYPE_CHECKING:
    from pathlib import Path

    from clipsieve.core.contracts import Pixels, Reader, Rows, Shard, Vectors
    from clipsieve.engines.commit import Sink
    from clipsieve.engines.prior import Prior
    from clipsieve.plan import Plan

T = TypeVar("T")

CHUNKS_AHEAD = 3
"""Chunks on which image work has begun while the model is busy with an earlier one."""


@dataclass(kw_only=True, eq=False)
class ShardInWork:
    """A shard whose chunks arrive one by one."""

    shard: Shard
    rows: Rows
    store: ByteStore
    chunks: list[Chunk] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A chunk with all that can be known without the model, and its ``inputs`` for the model by image."""

    work: ShardInWork
    chunk: Chunk
    inputs: dict[int, Pixels]
    last: bool
    """Whether it is the last of its shard."""


class Preparation:
    """Prepares shards with ``workers`` threads; a few chunks are in memory at once.

    ``prepare`` makes the model's input of an image, None where there is no model. ``scratch`` is the folder for bytes
    that are too many for memory, None for the system's. ``stays_open`` says that the process goes on to more shards
    afterwards, so that connections to hosts, and what is known of these, are kept. ``prior`` gives, for the number of a
    shard, what an earlier run found of it: only what lacks is computed.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        reader: Reader,
        sink: Sink,
        prepare: Prepare | None,
        workers: int,
        times: StageTimes,
        scratch: Path | None,
        stays_open: bool = False,
        prior: Callable[[int], Prior] | None = None,
    ) -> None:
        self.plan = plan
        self.reader = reader
        self.sink = sink
        self.prepare = prepare
        self.workers = workers
        self.times = times
        self.scratch = scratch
        self.prior = prior
        self._stopping = threading.Event()
        # Of what an earlier run has scored few images are read again, and which is not known before.
        self._prefetch = None if prior else Prefetch()
        self._downloads = Downloads(None if prior else reader.layout.fetch, sink.folder, times, stays_open=stays_open)

    def stop(self) -> None:
        """Lets image work that still waits go undone, so that a run that fails ends at once."""
        self._stopping.set()
        self._downloads.stop()
        if self._prefetch is not None:
            self._prefetch.stop()

    def chunks(self, shards: Iterable[Shard]) -> Iterator[Prepared]:
        """The chunks of ``shards`` in order; at least one of each."""
        ahead: deque[tuple[ShardInWork, Chunk, list[Future[ImageWork]], bool]] = deque()
        with (
            self._downloads,
            Background(self._downloads.ahead(self._batches(shards)), 1) as batches,
            ThreadPoolExecutor(self.workers, "clipsieve-images") as pool,
            self._letting_go(),
        ):
            for work, batch in batches:
                number = work.shard.number
                prior = None if self.prior is None else self.prior(number)
                for chunk, last in _with_last(chunks(self.plan, number, batch, prior, self.times)):
                    chunk.score_rows()
                    if self._prefetch is not None:
                        self._prefetch.begin(chunk.batch)
                    futures = [
                        pool.submit(self._score_image, work, chunk, image) for image in range(chunk.batch.images)
                    ]
                    ahead.append((work, chunk, futures, last))
                    if len(ahead) > CHUNKS_AHEAD:
                        yield self._accepted(*ahead.popleft())
            while ahead:
                yield self._accepted(*ahead.popleft())

    @contextmanager
    def _letting_go(self) -> Iterator[None]:
        """When a shard cannot be read, or who takes the chunks wants no more, nothing is waited for."""
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def _score_image(self, work: ShardInWork, chunk: Chunk, image: int) -> ImageWork:
        if self._stopping.is_set():
            return ImageWork()
        done = chunk.score_image(image, self.prepare)
        # At once, so that the bytes in memory do not grow with the images ahead.
        if done.data is not None and self.sink.needs_bytes:
            work.store.put((chunk.number, image), done.data)
        return replace(done, data=None)

    def _accepted(self, work: ShardInWork, chunk: Chunk, futures: Sequence[Future[ImageWork]], last: bool) -> Prepared:
        inputs = chunk.accept([future.result() for future in futures], encodes=self.prepare is not None)
        if last:
            self._downloads.finished(work.shard.number)
        return Prepared(work=work, chunk=chunk, inputs=inputs, last=last)

    def _batches(self, shards: Iterable[Shard]) -> Iterator[tuple[ShardInWork, Batch]]:
        for shard in shards:
            with self.times.of("read rows"):
                rows = self.reader.read(shard)
                batch = Batch.from_rows(rows, self.reader.layout)
            yield ShardInWork(shard=shard, rows=rows, store=ByteStore(self.scratch)), batch


def _with_last(items: Iterator[T]) -> Iterator[tuple[T, bool]]:
    """Each item with whether it is the last."""
    previous = next(items)
    for item in items:
        yield previous, False
        previous = item
    yield previous, True


class Background(Iterable[T]):
    """Runs an iterator in a thread of its own, ``depth`` items ahead at most, with the one in the making counted.

    Its errors surface where it is read.
    """

    def __init__(self, source: Iterator[T], depth: int) -> None:
        self._source = source
        self._queue: queue.SimpleQueue[tuple[str, T | BaseException | None]] = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Background[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._room.release()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while True:
            kind, item = self._queue.get()
            self._room.release()
            if kind == "item":
                yield item  # type: ignore[misc]
            elif kind == "error":
                assert isinstance(item, BaseException)
                raise item
            else:
                return

    def _work(self) -> None:
        try:
            while self._room.acquire() and not self._stopped.is_set():
                self._queue.put(("item", next(self._source)))
        except StopIteration:
            self._queue.put(("end", None))
        except BaseException as failure:
            self._queue.put(("error", failure))
        finally:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
