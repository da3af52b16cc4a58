"""What happens to a shard in the processes of a cluster: prepared, encoded and committed, each where there is room.

The steps are those of the local engine. What a step raises travels on in the shard's row in place of a result, so that
the one who asked decides what becomes of the others, and raises it as what it was. Ray tries again what ends without a
row: when a process or a node is lost. How often is decided here, since of a shard that is given up, too, a row tells.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Reader, Rows, Shard
from clipsieve.core.embed import TextVectors, embed_images
from clipsieve.core.timing import StageTimes
from clipsieve.engines.bytestore import ByteStore
from clipsieve.engines.chunk import Chunk, chunks
from clipsieve.engines.commit import Committer, ScoredShard
from clipsieve.engines.encode import ShardTexts, score_vectors
from clipsieve.engines.prepare import Preparation, ShardInWork
from clipsieve.engines.ray.failures import ProcessesDiedError, serialize_error
from clipsieve.engines.ray.model import ModelInfo, load_same, threads_here
from clipsieve.engines.ray.objects import get_object
from clipsieve.engines.ray.shard_row import ShardRow, of_array, of_table, packed, to_table, unpacked, unpickled
from clipsieve.engines.ray.worker_environment import WorkerEnvironment
from clipsieve.engines.usage import ENCODE, PREPARE, WRITE, Stamp
from clipsieve.plan import Plan

if TYPE_CHECKING:
    from clipsieve.core.contracts import Vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What the processes of a run must know; sent once to each."""

    plan: Plan
    reader: Reader
    committer: Committer
    model: ModelInfo | None
    environment: WorkerEnvironment
    threads: int
    """Threads of a task that work on images; they wait for storage more than they compute."""
    sharing: int | None
    """Encoders that share the CPUs of a node; None on GPUs."""


def request(shard: Shard) -> pa.Table:
    """The row of a shard that is to be done."""
    return packed({"shard": shard, "stamps": []})


def prepare(job: Any, tries: int, table: pa.Table) -> Iterator[pa.Table]:
    """Everything before the model.

    ``job`` refers to a ``Job``. A shard whose process or node is lost is begun anew ``tries`` times, and then given up.
    """
    return _each(job, tries, table, PREPARE, _prepare)


class Encode:
    """The model, loaded once a process."""

    def __init__(self, job: Any, tries: int) -> None:
        self._job = job
        self._tries = tries
        self._failure: Exception | None = None
        try:
            known = _known(job)
            assert known.model is not None
            threads = threads_here(known.sharing)
            self._encoder = load_same(known.plan.recipe, known.model.fingerprint, threads)
        except Exception as failure:  # told of with the shard that it is first given
            self._failure = failure

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Inputs to vectors; what else is in the row goes on as it is."""
        return _each(self._job, self._tries, table, ENCODE, self._encode)

    def _encode(self, job: Job, row: ShardRow, times: StageTimes) -> Mapping[str, Any]:
        if self._failure is not None:
            raise self._failure
        recipe = job.plan.recipe
        seen = self._encoder.preprocessing
        inputs = np.frombuffer(row["inputs"], np.uint8).reshape(-1, seen.height, seen.width, 3)
        with times.of("encode images"):
            vectors = embed_images(self._encoder, list(inputs), recipe.batch_size)
        texts: ShardTexts | None = unpickled(row, "texts")
        with times.of("encode texts"):
            found = texts and texts.encode(self._encoder, recipe.long_text, recipe.batch_size)
        going_on = {name: row[name] for name in ("shard", "rows", "found", "bytes")}
        return {**going_on, "vectors": of_array(vectors), "dim": vectors.shape[1], "texts": found}


def write(job: Any, tries: int, table: pa.Table) -> Iterator[pa.Table]:
    """Everything after the model, up to the commit."""
    return _each(job, tries, table, WRITE, _write)


def score_and_write(job: Any, tries: int, table: pa.Table) -> Iterator[pa.Table]:
    """The whole way of a shard that needs no model."""
    return _each(job, tries, table, PREPARE, _score_and_write)


@lru_cache(maxsize=1)
def _known(job: Any) -> Job:
    """The ``Job`` that a reference stands for, once a process.

    Raises ``EngineError`` where what is read and written is not seen.
    """
    known: Job = get_object(job)
    known.environment.apply()
    return known


def _each(
    job: Any,
    tries: int,
    table: pa.Table,
    operator: str,
    work: Callable[[Job, ShardRow, StageTimes], Mapping[str, Any]],
) -> Iterator[pa.Table]:
    """The rows that ``work`` makes of a table's, stamped; one that carries a failure goes on as it is."""
    for row in unpacked(table):
        if "failure" in row:
            yield packed(row)
            continue
        times = StageTimes()
        began = time.time()
        try:
            _check_tries(row, tries)
            columns = work(_known(job), row, times)
        except Exception as failure:  # also what the user's own filters raise: raised again as itself, elsewhere
            columns = {"shard": row["shard"], "failure": serialize_error(failure)}
        stamp = Stamp(
            operator=operator,
            began=began,
            ended=time.time(),
            process=(socket.gethostname(), os.getpid()),
            seconds=times.seconds,
        )
        yield packed({**columns, "stamps": [*unpickled(row, "stamps"), stamp]})


def _check_tries(row: ShardRow, tries: int) -> None:
    """Raises ``ProcessesDiedError`` when the shard of ``row`` was begun anew more than ``tries`` times.

    Counted here, since Ray Data would end the whole run, would not say which shard it was, and lets what the memory
    monitor kills be tried for ever.
    """
    from ray._private.worker import global_worker

    if global_worker.core_worker.get_current_task_attempt_number() > tries:
        shard: Shard = unpickled(row, "shard")
        raise ProcessesDiedError(
            f"shard {shard.number} ({shard.pieces[0].path}): the {tries + 1} processes that worked on it have all "
            "died, most likely for want of memory"
        )


def _prepared(job: Job, shard: Shard, times: StageTimes) -> tuple[ShardInWork, pa.Buffer]:
    """A shard with its chunks, and the model's inputs one after the other."""
    preparation = Preparation(
        plan=job.plan,
        reader=job.reader,
        sink=job.committer,
        prepare=None if job.model is None else job.model.preprocessing.prepare,
        workers=job.threads,
        times=times,
        scratch=None,  # the node's own disk: the run folder is far away, and they are read again at once
        stays_open=True,
    )
    inputs = pa.BufferOutputStream()
    for one in preparation.chunks([shard]):
        one.work.chunks.append(one.chunk)
        for prepared in one.inputs.values():
            inputs.write(of_array(prepared))
    return one.work, inputs.getvalue()


def _prepare(job: Job, row: ShardRow, times: StageTimes) -> Mapping[str, Any]:
    shard: Shard = unpickled(row, "shard")
    work, inputs = _prepared(job, shard, times)
    data, places = work.store.packed()
    work.store.close()
    rows = work.rows
    found = {
        "chunks": [chunk.found() for chunk in work.chunks],
        "places": places,
        "rows": {"origins": rows.origins, "errors": rows.errors, "starts": rows.starts, "kept": rows.kept},
    }
    return {
        "shard": shard,
        "rows": of_table(rows.table),
        "found": found,
        "bytes": pa.py_buffer(data),
        "inputs": inputs,
        "texts": ShardTexts.of(work.chunks) if job.plan.needs_texts else None,
    }


def _write(job: Job, row: ShardRow, times: StageTimes) -> Mapping[str, Any]:
    shard: Shard = unpickled(row, "shard")
    found = unpickled(row, "found")
    rows = Rows(table=to_table(row["rows"]), **found["rows"])
    pieces = list(chunks(job.plan, shard.number, Batch.from_rows(rows, job.reader.layout), times=times))
    for chunk, known in zip(pieces, found["chunks"], strict=True):
        chunk.resume(known)
    vectors = np.frombuffer(row["vectors"], np.float32).reshape(-1, unpickled(row, "dim"))
    texts: TextVectors | None = unpickled(row, "texts")
    assert job.model is not None
    score_vectors(pieces, _of_chunks(pieces, vectors), texts, job.model.prompts)
    return _committed(job, shard, pieces, ByteStore.unpacked(row["bytes"], found["places"]), times)


def _score_and_write(job: Job, row: ShardRow, times: StageTimes) -> Mapping[str, Any]:
    shard: Shard = unpickled(row, "shard")
    work, _ = _prepared(job, shard, times)
    return _committed(job, shard, work.chunks, work.store, times)


def _committed(
    job: Job, shard: Shard, pieces: Sequence[Chunk], store: ByteStore, times: StageTimes
) -> Mapping[str, Any]:
    """Commits a shard; what is left of it is a few numbers."""
    scored = ScoredShard(shard=shard, chunks=pieces, store=store)
    with times.of("decide and write"):
        counts = job.committer.commit(scored)
    return {"shard": shard, "counts": counts}


def _of_chunks(pieces: Sequence[Chunk], encoded: Vectors) -> list[Vectors]:
    """The vectors of each chunk, a row an image, NaN where it was not encoded; ``encoded`` are the others in order."""
    ends = accumulate(int(chunk.encoded.sum()) for chunk in pieces)
    cut = np.split(encoded, list(ends)[:-1])
    found = []
    for chunk, mine in zip(pieces, cut, strict=True):
        vectors = np.full((chunk.batch.images, encoded.shape[1]), np.nan, dtype=np.float32)
        vectors[chunk.encoded] = mine
        found.append(vectors)
    return found
