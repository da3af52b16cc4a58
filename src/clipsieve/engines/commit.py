"""From a scored shard to files: output first, then the ledger part, which is the commit.

A recipe with rules over the whole data set takes two passes: the first stages the survivors of the local rules and
commits their scores, then a selection runs over all scores, and the second writes what it leaves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core import storage
from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Filter, Shard, Vectors, Writer
from clipsieve.core.decide import Verdicts
from clipsieve.core.layout import add_scores, embedded
from clipsieve.core.ledger import Counts, begins_sample, count
from clipsieve.engines.bytestore import ByteStore, StoredBytes
from clipsieve.engines.chunk import Chunk, reread
from clipsieve.engines.prior import CARRIED
from clipsieve.engines.staging import stage
from clipsieve.errors import OutputError
from clipsieve.runfolder import Kind, RunFolder, atomic, clean_partials, write_table

if TYPE_CHECKING:
    from clipsieve.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredShard:
    """A shard whose chunks have all their scores, and the bytes that its writer will need."""

    shard: Shard
    chunks: Sequence[Chunk]
    store: ByteStore

    def finish(self, filters: Sequence[Filter] = ()) -> tuple[list[Verdicts], pa.Table]:
        """The verdicts of each chunk by all local rules and then by ``filters``, and the shard's ledger rows."""
        finished = [chunk.finish(filters, self.store) for chunk in self.chunks]
        return [verdicts for verdicts, _ in finished], pa.concat_tables([rows for _, rows in finished])

    def kept(self, verdicts: Sequence[Verdicts]) -> Batch:
        """What stays, with the bytes that were fetched on the way."""
        pieces = list(zip(self.chunks, verdicts, strict=True))
        kept = Batch.concat([chunk.kept(decided, self.store) for chunk, decided in pieces])
        keys = [key for chunk, decided in pieces for key in chunk.keys(decided)]
        again = reread(kept, pieces)
        kept.bytes = StoredBytes(store=self.store, keys=keys, sources=kept.parts.images, reread=again)
        return kept

    def image_vectors(self, ledger: pa.Table) -> Vectors:
        """The vectors of the shard's ``ledger`` rows, ``(rows, dim)``; NaN where there is none."""
        return _placed([chunk.batch.image_vectors for chunk in self.chunks], ledger)

    def best_text_vectors(self, ledger: pa.Table) -> Vectors:
        """The vector of the best-matching text of each image, in the same places."""
        return _placed([chunk.best_text_vectors() for chunk in self.chunks], ledger)


def _placed(vectors: Sequence[Vectors], ledger: pa.Table) -> Vectors:
    """Vectors of images in the rows of ``ledger`` that are images."""
    stacked = np.concatenate(vectors)
    placed: Vectors = np.full((ledger.num_rows, stacked.shape[1]), np.nan, dtype=np.float32)
    placed[np.flatnonzero(pc.is_valid(ledger["image"]).to_numpy())] = stacked
    return placed


class Sink(Protocol):
    """Where an engine leaves the shards that it has scored, one at a time and in order."""

    @property
    def folder(self) -> RunFolder | None:
        """The run folder, where there is one."""
        ...

    @property
    def scratch(self) -> Path | None:
        """The folder for fetched bytes that are too many for memory; None for the system's."""
        ...

    @property
    def needs_bytes(self) -> bool:
        """Whether the bytes of kept images are wanted."""
        ...

    def commit(self, scored: ScoredShard) -> Counts:
        """Takes a shard."""
        ...


def output_name(prefix: str) -> re.Pattern[str]:
    """How the names of an output's files begin: with the numbers of the shard and of its part."""
    return re.compile(rf"{re.escape(prefix)}(\d{{5,}})(?:-(\d{{4,}}))?\.")


class Output:
    """Where the survivors go: files named after their shard, each whole or not there."""

    def __init__(
        self,
        folder: Path,
        writer: Writer,
        *,
        samples_per_shard: int | None = None,
        prefix: str = "",
        embed: bool = False,
    ) -> None:
        self.folder = folder
        self.writer = writer
        self.samples_per_shard = samples_per_shard
        self.prefix = prefix
        self.embed = embed
        self.needs_bytes = writer.needs_bytes or embed

    def clean(self, run: RunFolder) -> None:
        """Removes what a dead process left of shards that ``run`` has no ledger of: files half-written, and whole ones.

        A shard that is done again may have fewer files, where a score lies so close to a threshold that another device
        decides otherwise. For who holds the run folder, before others write.
        """
        clean_partials(self.folder, output_name(self.prefix))
        done = run.done("ledger")
        for shard, path in self._by_shard():
            # A listing may show a part late; without its output it would stand for nothing.
            if shard not in done and not storage.exists(run.part("ledger", shard)):
                storage.remove(path)

    def files(self) -> list[Path]:
        """Those that are there, in the order of their shards."""
        return [path for _, path in self._by_shard()]

    def _by_shard(self) -> list[tuple[int, Path]]:
        """The files that are there, each with the number of its shard, in order."""
        named = output_name(self.prefix)
        found = [match for name in storage.names(self.folder) if (match := named.match(name))]
        found.sort(key=lambda match: [int(number or 0) for number in match.groups()])
        return [(int(match[1]), self.folder / match.string) for match in found]

    def write(self, shard: int, batch: Batch) -> None:
        """Writes the rows of ``batch``; nothing when there are none."""
        step = self.samples_per_shard or batch.samples
        for number, start in enumerate(range(0, batch.samples, step or 1)):
            part = "" if self.samples_per_shard is None else f"-{number:04d}"
            name = f"{self.prefix}{shard:05d}{part}"
            piece = batch.slice_samples(start, min(start + step, batch.samples))
            if self.embed:
                piece = piece.with_table(embedded(piece.table, piece.parts, piece.bytes, piece.errors))
            with atomic(self.folder / f"{name}{self.writer.suffix}") as file:
                self.writer.write(piece, file, name)


class Committer:
    """Puts scored shards in place, one at a time."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        output: Output | None,
        metadata: Mapping[str, str],
        filters: Sequence[Filter] = (),
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.output = output
        self.metadata = {key.encode(): value.encode() for key, value in metadata.items()}
        self.filters = filters
        self.scratch = folder.path if storage.is_local(folder.path) else None
        filters_look = any(getattr(one, "needs_bytes", True) for one in filters)
        self.needs_bytes = filters_look or (output is not None and output.needs_bytes)

    @property
    def folders(self) -> list[Path]:
        """Those of file systems that it writes to; whoever commits must see the same ones."""
        written = [self.folder.path, *([self.output.folder] if self.output is not None else [])]
        return [folder for folder in written if storage.is_local(folder)]

    def commit(self, scored: ScoredShard) -> Counts:
        """Commits a shard: to the ledger, or, when a selection over the whole data set follows, to the scores."""
        number = scored.shard.number
        verdicts, table = scored.finish(self.filters)
        if self.plan.two_passes or self.output is not None:
            kept = scored.kept(verdicts)
            if self.plan.two_passes:
                stage(self.folder.staged(number), kept, needs_bytes=self.needs_bytes)
            else:
                self.write_output(number, kept, table)
        if self.plan.keeps_vectors:
            self._write_vectors(scored, table)
        scored.store.close()
        return self.write_part("scores" if self.plan.two_passes else "ledger", number, table)

    def write_output(self, shard: int, kept: Batch, ledger: pa.Table) -> None:
        """Writes what stays of a shard, when the recipe says where to; ``ledger`` holds the shard's rows."""
        if self.output is not None:
            self.output.write(shard, self._with_scores(kept, ledger))

    def _with_scores(self, kept: Batch, ledger: pa.Table) -> Batch:
        """The batch with the scores as columns, when the recipe wants them in the output."""
        if self.plan.recipe.write is None or not self.plan.recipe.write.scores:
            return kept
        images = ledger.filter(pc.and_(pc.is_valid(ledger["image"]), pc.equal(ledger["verdict"], "kept")))
        samples = ledger.filter(pa.array(begins_sample(ledger)))
        samples = samples.filter(pc.equal(samples["sample_verdict"], "kept"))
        of_images: dict[str, pa.Array] = {}
        of_samples: dict[str, pa.Array] = {}
        for score in ledger.schema:
            about = score.metadata or {}
            unit = None if about.keys() & CARRIED.keys() else about.get(b"unit")
            if unit == b"sample":
                of_samples[score.name] = samples[score.name].combine_chunks()
            elif unit is not None:
                of_images[score.name] = images[score.name].combine_chunks()
        taken = sorted({*of_images, *of_samples} & set(kept.table.column_names))
        if taken:
            raise OutputError(
                f"the source has columns named like scores ({', '.join(taken)}), which --scores would replace; "
                "rename them, or run without --scores and take the scores from the ledger"
            )
        return kept.with_table(add_scores(kept.table, kept.layout, kept.parts, of_images, of_samples))

    def _write_vectors(self, scored: ScoredShard, table: pa.Table) -> None:
        """The vectors of the ledger's rows: image vectors and, where texts were embedded, each one's best text."""
        self._save(self.folder.vectors(scored.shard.number, "image"), scored.image_vectors(table))
        if self.plan.needs_texts:
            self._save(self.folder.vectors(scored.shard.number, "text"), scored.best_text_vectors(table))

    def _save(self, path: Path, vectors: Vectors) -> None:
        with atomic(path) as file:
            np.save(file, vectors, allow_pickle=False)

    def write_part(self, kind: Kind, shard: int, table: pa.Table) -> Counts:
        """Writes a part of the ledger or of the scores: the commit."""
        write_table(
            self.folder.part(kind, shard),
            table.replace_schema_metadata({**(table.schema.metadata or {}), **self.metadata}),
        )
        return count(table)
