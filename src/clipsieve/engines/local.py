"""The local engine: reading, image work, the model and writing overlap on the threads of this machine.

One thread reads shards ahead, a pool fetches, decodes and scores images, the calling thread owns the model, and
one thread writes and commits. Queues between them are short, so memory is bounded by what is in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from clipsieve.core.embed import Prompts, TextVectors, embed_prompts
from clipsieve.core.ledger import Counts
from clipsieve.core.spread import Spread
from clipsieve.core.threads import cores
from clipsieve.core.timing import StageTimes
from clipsieve.engines.chunk import Chunk
from clipsieve.engines.commit import ScoredShard, Sink
from clipsieve.engines.encode import ShardTexts, score_vectors
from clipsieve.engines.prepare import Background, Preparation, ShardInWork
from clipsieve.engines.usage import Usage

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder, Pixels, Reader, Shard, Vectors
    from clipsieve.engines.prior import Prior
    from clipsieve.plan import Plan


class LocalEngine:
    """Scores shards on this machine and hands each to a ``Sink``."""

    workers_elsewhere: Spread | None = None
    """None: what comes after the first pass is done in this process too."""

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
        self.workers = workers or cores()
        self.batch_size = batch_size
        self.progress = progress
        self.prior = prior
        self.times = StageTimes()
        self.usage: Sequence[Usage] = ()

    def run(self, shards: Iterable[Shard]) -> None:
        """Scores and commits ``shards``; ``progress`` hears of images as they pass and of each commit."""
        preparation = Preparation(
            plan=self.plan,
            reader=self.reader,
            sink=self.sink,
            prepare=None if self.encoder is None else self.encoder.prepare,
            workers=self.workers,
            times=self.times,
            scratch=self.sink.scratch,
            prior=self.prior,
        )
        with (
            ThreadPoolExecutor(1, "clipsieve-commit") as writing,
            Background(preparation.chunks(shards), 2) as ready,
            _letting_go(preparation),
        ):
            commit: Future[Counts] | None = None
            waiting: list[tuple[Vectors, int, Pixels]] = []
            for one in ready:
                work, chunk = one.work, one.chunk
                vectors = self._known_vectors(chunk)
                work.chunks.append(chunk)
                work.vectors.append(vectors)
                waiting.extend((vectors, image, prepared) for image, prepared in one.inputs.items())
                self._encode(waiting, flush=one.last)
                self.times.images += chunk.batch.images
                self.progress(chunk.batch.images, None)
                if one.last:
                    scored = self._score(work)
                    if commit is not None:
                        self.progress(0, commit.result())
                    commit = writing.submit(self._commit, scored)
                    # The writer's now: named here, its memory would outlive its commit.
                    del scored, work, chunk, one
            if commit is not None:
                self.progress(0, commit.result())

    def _commit(self, scored: ScoredShard) -> Counts:
        with self.times.of("decide and write"):
            return self.sink.commit(scored)

    def _known_vectors(self, chunk: Chunk) -> Vectors:
        """The vectors that an earlier run has of the images of a chunk, NaN for those to come, ``(images, dim)``."""
        if chunk.known_vectors is not None:
            return np.array(chunk.known_vectors)
        return np.full((chunk.batch.images, self.encoder.dim if self.encoder else 0), np.nan, dtype=np.float32)

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

    def _score(self, work: ShardInWork) -> ScoredShard:
        if self.plan.needs_encoder:
            score_vectors(work.chunks, work.vectors, self._texts(work), self.prompts)
        return ScoredShard(
            shard=work.shard,
            chunks=work.chunks,
            store=work.store,
        )

    @cached_property
    def prompts(self) -> Prompts | None:
        """The plan's prompts, embedded when the first shard needs them: a run that is done already needs none."""
        if not self.plan.prompts or self.encoder is None:
            return None
        return embed_prompts(self.encoder, self.plan.prompts, self.batch_size)

    def _texts(self, work: ShardInWork) -> TextVectors | None:
        """The vectors of a shard's texts, where they are needed."""
        if not self.plan.needs_texts or self.encoder is None:
            return None
        texts = ShardTexts.of(work.chunks)
        with self.times.of("encode texts"):
            return texts.encode(self.encoder, self.plan.recipe.long_text, self.batch_size)


@contextmanager
def _letting_go(preparation: Preparation) -> Iterator[None]:
    """When the run fails or is interrupted, image work that still waits is not done, so that it ends at once."""
    try:
        yield
    except BaseException:
        preparation.stop()
        raise
