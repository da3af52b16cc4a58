"""The local engine: reading, image work, the model and writing overlap on the threads of this machine.

One thread reads shards ahead, a pool fetches, decodes and scores images, the calling thread owns the model, and
one thread writes and commits. Queues between them are short, so memory is bounded by what is in flight.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from clipsieve.core.batch import Batch
from clipsieve.core.embed import Prompts, TextVectors, embed_prompts, embed_texts
from clipsieve.core.ledger import Counts
from clipsieve.core.timing import StageTimes
from clipsieve.engines.bytestore import ByteStore
from clipsieve.engines.chunk import Chunk, ImageWork, chunks
from clipsieve.engines.commit import ScoredShard, Sink

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder, Pixels, Reader, Shard, Vectors
    from clipsieve.engines.prior import Prior
    from clipsieve.plan import Plan

T = TypeVar("T")

CHUNKS_AHEAD = 3
"""Chunks on which image work has begun while the model is busy with an earlier one."""


@dataclass(kw_only=True, eq=False)
class _ShardInWork:
    """A shard whose chunks arrive one by one."""

    shard: Shard
    store: ByteStore
    chunks: list[Chunk] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)


class LocalEngine:
    """Scores shards on this machine and hands each to a ``Sink``."""

    def __init__(
        self,
        *,
        plan: Plan,
        reader: Reader,
        encoder: Encoder | None,
        sink: Sink,
        workers: int | None = None,
        batch_size: int,
        progress: Callable[[int, Counts | None], None],
        prior: Callable[[int], Prior] | None = None,
    ) -> None:
        """``prior`` gives, for the number of a shard, what an earlier run found of it: only what lacks is computed."""
        self.plan = plan
        self.reader = reader
        self.encoder = encoder
        self.sink = sink
        self.workers = workers or os.cpu_count() or 1
        self.batch_size = batch_size
        self.progress = progress
        self.prior = prior
        self.times = StageTimes()
        self._stopping = threading.Event()

    def run(self, shards: Iterable[Shard]) -> None:
        """Scores and commits ``shards``; ``progress`` hears of images as they pass and of each commit."""
        with (
            ThreadPoolExecutor(1, "clipsieve-commit") as writing,
            _Background(self._chunks(shards), 2) as ready,
            self._letting_go(),
        ):
            commit: Future[Counts] | None = None
            waiting: list[tuple[Vectors, int, Pixels]] = []
            for work, chunk, inputs, last in ready:
                vectors = self._known_vectors(chunk)
                work.chunks.append(chunk)
                work.vectors.append(vectors)
                chunk.encoded[list(inputs)] = True
                waiting.extend((vectors, image, prepared) for image, prepared in inputs.items())
                self._encode(waiting, flush=last)
                self.times.images += chunk.batch.images
                self.progress(chunk.batch.images, None)
                if last:
                    scored = self._score(work)
                    if commit is not None:
                        self.progress(0, commit.result())
                    commit = writing.submit(self._commit, scored)
                    # The writer's now: named here, its memory would outlive its commit.
                    del scored, work, chunk
            if commit is not None:
                self.progress(0, commit.result())

    def _commit(self, scored: ScoredShard) -> Counts:
        with self.times.of("decide and write"):
            return self.sink.commit(scored)

    @contextmanager
    def _letting_go(self) -> Iterator[None]:
        """When the run fails or is interrupted, image work that still waits is not done, so that it ends at once."""
        try:
            yield
        except BaseException:
            self._stopping.set()
            raise

    def _chunks(self, shards: Iterable[Shard]) -> Iterator[tuple[_ShardInWork, Chunk, dict[int, Pixels], bool]]:
        """Chunks with their image work done, in order, and whether each is the last of its shard."""
        ahead: deque[tuple[_ShardInWork, Chunk, list[Future[ImageWork]], bool]] = deque()
        with (
            _Background(self._batches(shards), 1) as batches,
            ThreadPoolExecutor(self.workers, "clipsieve-images") as pool,
        ):
            for shard, batch in batches:
                work = _ShardInWork(shard=shard, store=ByteStore(self.sink.scratch))
                prior = None if self.prior is None else self.prior(shard.number)
                for chunk, last in _with_last(chunks(self.plan, shard.number, batch, prior, self.times)):
                    chunk.score_rows()
                    futures = [
                        pool.submit(self._score_image, work, chunk, image) for image in range(chunk.batch.images)
                    ]
                    ahead.append((work, chunk, futures, last))
                    if len(ahead) > CHUNKS_AHEAD:
                        yield self._accepted(*ahead.popleft())
            while ahead:
                yield self._accepted(*ahead.popleft())

    def _known_vectors(self, chunk: Chunk) -> Vectors:
        """The vectors that an earlier run has of the images of a chunk, NaN for those to come, ``(images, dim)``."""
        if chunk.known_vectors is not None:
            return np.array(chunk.known_vectors)
        return np.full((chunk.batch.images, self.encoder.dim if self.encoder else 0), np.nan, dtype=np.float32)

    def _score_image(self, work: _ShardInWork, chunk: Chunk, image: int) -> ImageWork:
        if self._stopping.is_set():
            return ImageWork()
        done = chunk.score_image(image, self.encoder)
        # At once, so that the bytes in memory do not grow with the images ahead.
        if done.data is not None and self.sink.needs_bytes:
            work.store.put((chunk.number, image), done.data)
        return replace(done, data=None)

    def _accepted(
        self, work: _ShardInWork, chunk: Chunk, futures: Sequence[Future[ImageWork]], last: bool
    ) -> tuple[_ShardInWork, Chunk, dict[int, Pixels], bool]:
        return work, chunk, chunk.accept([future.result() for future in futures], self.encoder), last

    def _batches(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, Batch]]:
        for shard in shards:
            with self.times.of("read rows"):
                batch = Batch.from_rows(self.reader.read(shard), self.reader.layout)
            yield shard, batch

    def _encode(self, waiting: list[tuple[Vectors, int, Pixels]], *, flush: bool) -> None:
        """Encodes full batches of ``waiting`` (and the rest on ``flush``), each vector into its place."""
        while len(waiting) >= self.batch_size or (flush and waiting):
            assert self.encoder is not None
            taken = waiting[: self.batch_size]
            del waiting[: self.batch_size]
            with self.times.of("encode images"):
                encoded = self.encoder.images(np.stack([prepared for _, _, prepared in taken]))
            for (vectors, image, _), vector in zip(taken, encoded, strict=True):
                vectors[image] = vector

    def _score(self, work: _ShardInWork) -> ScoredShard:
        if self.plan.needs_encoder:
            for chunk, vectors, texts in zip(work.chunks, work.vectors, self._texts(work.chunks), strict=True):
                chunk.score_vectors(vectors, texts, self.prompts)
        return ScoredShard(
            shard=work.shard,
            chunks=work.chunks,
            store=work.store,
            layout=self.reader.layout,
        )

    @cached_property
    def prompts(self) -> Prompts | None:
        """The plan's prompts, embedded when the first shard needs them: a run that is done already needs none."""
        if not self.plan.prompts or self.encoder is None:
            return None
        return embed_prompts(self.encoder, self.plan.prompts, self.batch_size)

    def _texts(self, pieces: Sequence[Chunk]) -> Iterator[TextVectors | None]:
        """Text vectors of each chunk; equal texts of the shard are encoded once."""
        if not self.plan.needs_texts or self.encoder is None:
            yield from [None] * len(pieces)
            return
        found = [chunk.texts() for chunk in pieces]
        offsets = np.cumsum([0] + [chunk.batch.samples for chunk in pieces])
        with self.times.of("encode texts"):
            vectors = embed_texts(
                self.encoder,
                [text for texts, _ in found for text in texts],
                np.concatenate([samples + offset for (_, samples), offset in zip(found, offsets, strict=False)]),
                self.plan.recipe.long_text,
                self.batch_size,
            )
        for start, stop in pairwise(offsets.tolist()):
            mine = (vectors.samples >= start) & (vectors.samples < stop)
            yield TextVectors(vectors=vectors.vectors[mine], samples=vectors.samples[mine] - start)


def _with_last(items: Iterator[T]) -> Iterator[tuple[T, bool]]:
    """Each item with whether it is the last."""
    previous = next(items)
    for item in items:
        yield previous, False
        previous = item
    yield previous, True


class _Background(Iterable[T]):
    """Runs an iterator in a thread of its own, ``depth`` items ahead at most, with the one in the making counted.

    Its errors surface where it is read.
    """

    def __init__(self, source: Iterator[T], depth: int) -> None:
        self._source = source
        self._queue: queue.SimpleQueue[tuple[str, T | BaseException | None]] = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> _Background[T]:
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
