"""From a scored shard to files: output first, then the ledger part, which is the commit.

A recipe with rules over the whole data set takes two passes: the first stages the survivors of the local rules and
commits their scores, then a selection runs over all scores, and the second writes what it leaves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Rows, Shard, Writer
from clipsieve.core.decide import BoundRule, Verdicts
from clipsieve.core.layout import Layout, Mask, add_scores
from clipsieve.core.ledger import Counts, count
from clipsieve.core.rules import rank_mask
from clipsieve.core.similarity import best_texts
from clipsieve.engines.chunk import ByteStore, Chunk, StoredBytes, geometry
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
    layout: Layout


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a rule over the whole data set chose among a shard's survivors, ``chosen`` and ``values`` ``(units,)``."""

    bound: BoundRule
    chosen: Mask
    values: npt.NDArray[np.float64]
    edge: float

    def reasons(self, units: npt.NDArray[np.int64]) -> list[str]:
        """Why each of ``units`` is out."""
        rank = self.bound.rule.rank
        assert rank is not None
        name, side = self.bound.rule.name, f"{rank.side} {rank.percent:g}%"
        after = ", where earlier ones go first"
        return [
            f"{name} missing: {self.bound.why_missing}"
            if np.isnan(value)
            else f"{name} {value:.5g} not in {side} (cut at {self.edge:.5g}{after * (value == self.edge)})"
            for value in self.values[units].tolist()
        ]


class Output:
    """Where the survivors go: files named after their shard, each whole or not there."""

    def __init__(self, folder: Path, writer: Writer, samples_per_shard: int | None) -> None:
        self.folder = folder
        self.writer = writer
        self.samples_per_shard = samples_per_shard
        clean_partials(folder)

    def write(self, shard: int, batch: Batch) -> None:
        """Writes the rows of ``batch``; nothing when there are none."""
        step = self.samples_per_shard or batch.samples
        for number, start in enumerate(range(0, batch.samples, step or 1)):
            name = f"{shard:05d}" if self.samples_per_shard is None else f"{shard:05d}-{number:04d}"
            piece = batch.slice_samples(start, min(start + step, batch.samples))
            with atomic(self.folder / f"{name}{self.writer.suffix}") as file:
                self.writer.write(piece, file, name)


class Committer:
    """Puts scored shards in place, one at a time."""

    def __init__(self, plan: Plan, folder: RunFolder, output: Output | None, metadata: Mapping[str, str]) -> None:
        self.plan = plan
        self.folder = folder
        self.output = output
        self.metadata = {key.encode(): value.encode() for key, value in metadata.items()}
        self.needs_bytes = output is not None and output.writer.needs_bytes

    def commit(self, scored: ScoredShard) -> Counts:
        """Commits a shard: to the ledger, or, when a selection over the whole data set follows, to the scores."""
        number = scored.shard.number
        finished = [chunk.finish() for chunk in scored.chunks]
        table = pa.concat_tables([rows for _, rows in finished])
        if self.output is not None or self.plan.ranks:
            kept = _kept_batch(scored, [verdicts for verdicts, _ in finished])
            if self.plan.ranks:
                self._stage(number, kept)
            elif self.output is not None:
                self.output.write(number, self._with_scores(kept, table))
        if self.plan.recipe.vectors:
            self._write_vectors(scored, table)
        scored.store.close()
        return self._write_part("scores" if self.plan.ranks else "ledger", number, table)

    def select(self, shards: Sequence[Shard]) -> Mapping[int, Sequence[Selection]]:
        """Judges the rules over the whole data set by the committed scores; the selections of each shard."""
        found: dict[int, list[Selection]] = {shard.number: [] for shard in shards}
        for bound in self.plan.ranks:
            values = [self._survivors(shard.number, bound) for shard in shards]
            everything = np.concatenate(values)
            rank = bound.rule.rank
            assert rank is not None
            chosen = rank_mask(everything, rank)
            edge = (np.min if rank.side == "top" else np.max)(everything[chosen]) if chosen.any() else np.nan
            ends = np.cumsum([len(part) for part in values])
            for shard, mask, part in zip(shards, np.split(chosen, ends[:-1]), values, strict=True):
                found[shard.number].append(Selection(bound=bound, chosen=mask, values=part, edge=float(edge)))
        return found

    def _survivors(self, shard: int, bound: BoundRule) -> npt.NDArray[np.float64]:
        """Values of the units that pass all local rules, in input order; NaN for a failed image that is kept."""
        columns = ["image", "sample", "verdict", "error", "sample_verdict", bound.rule.name]
        table = self.folder.part_table("scores", shard, columns)
        if bound.unit == "sample":
            _, first = np.unique(table["sample"].to_numpy(), return_index=True)
            table = table.take(pa.array(first))
            table = table.filter(pc.equal(table["sample_verdict"], "kept"))
        else:
            table = table.filter(pc.and_(pc.is_valid(table["image"]), pc.equal(table["verdict"], "kept")))
        values = np.asarray(table[bound.rule.name].to_numpy(), dtype=np.float64)
        if bound.rule.missing is None:
            return values
        return np.where(np.isnan(values) & pc.is_null(table["error"]).to_numpy(), bound.rule.missing, values)

    def commit_selected(self, shard: int, selections: Sequence[Selection], layout: Layout) -> Counts:
        """Commits a staged shard to the ledger with what the selections leave."""
        scores = self.folder.part_table("scores", shard)
        if scores.num_rows == 0:
            return self._write_part("ledger", shard, scores)
        batch, sizes = self._staged(shard, layout)
        verdicts = Verdicts(geometry(batch, pairs=False))
        images = pc.and_(pc.is_valid(scores["image"]), pc.equal(scores["verdict"], "kept"))
        image_rows = np.flatnonzero(images.to_numpy())
        errors = scores["error"].to_pylist()
        batch.errors = {image: errors[row] for image, row in enumerate(image_rows.tolist()) if errors[row] is not None}
        verdicts.exempt[list(batch.errors)] = True
        for selection in selections:
            bound = selection.bound
            if bound.unit == "sample":
                out = np.flatnonzero(verdicts.samples & ~selection.chosen)
                verdicts.drop_samples(out, bound.rule.text, selection.reasons(out))
            else:
                out = np.flatnonzero(verdicts.images & ~verdicts.exempt & ~selection.chosen)
                whole = bound.drop == "sample"
                verdicts.drop_images(out, bound.rule.text, selection.reasons(out), whole_sample=whole)
        table = _updated(scores, image_rows, verdicts)
        if self.output is not None:
            kept = self._with_scores(batch.kept(verdicts.images, verdicts.samples), table)
            self._write_selected(shard, kept, verdicts.images, sizes)
        return self._write_part("ledger", shard, table)

    def _stage(self, shard: int, kept: Batch) -> None:
        folder = self.folder.staged(shard)
        # A row that could not be parsed is one failed image, which its cells alone do not tell.
        images_of_row = np.bincount(kept.parts.image_rows, minlength=kept.table.num_rows)
        unparsed = {
            row: error
            for image, error in kept.errors.items()
            if kept.parts.images[image].error == error and images_of_row[row := int(kept.parts.image_rows[image])] == 1
        }
        write_table(folder / "rows.parquet", kept.table)
        sizes = []
        if self.needs_bytes:
            with atomic(folder / "bytes") as file:  # one image after the other: never all of them in memory
                for image, source in enumerate(kept.parts.images):
                    fetched = kept.bytes[image] if source.data is None else None
                    sizes.append(file.write(fetched or b""))
        with atomic(folder / "staged.json") as file:
            about = {"starts": kept.parts.sample_rows.tolist(), "unparsed": unparsed, "sizes": sizes}
            file.write(json.dumps(about).encode())

    def is_staged(self, shard: int) -> bool:
        """Whether the survivors of a shard are there for the second pass."""
        return (self.folder.staged(shard) / "staged.json").exists()

    def _staged(self, shard: int, layout: Layout) -> tuple[Batch, Sequence[int]]:
        """The survivors of a shard, and how many bytes of each of their images are in the file beside them."""
        folder = self.folder.staged(shard)
        about = json.loads((folder / "staged.json").read_text(encoding="utf-8"))
        unparsed = {int(row): error for row, error in about["unparsed"].items()}
        rows = Rows(table=pq.read_table(folder / "rows.parquet"), errors=unparsed, starts=about["starts"])
        return Batch.from_rows(rows, layout), about["sizes"]

    def _write_selected(self, shard: int, kept: Batch, images: Mask, sizes: Sequence[int]) -> None:
        """Writes what the selections leave of a staged shard; ``images`` says which of its images those are."""
        assert self.output is not None
        if not self.needs_bytes:
            self.output.write(shard, kept)
            return
        with open(self.folder.staged(shard) / "bytes", "rb") as file:
            keys = [(0, image) for image in np.flatnonzero(images).tolist()]
            kept.bytes = StoredBytes(store=ByteStore.opened(file, sizes), keys=keys, sources=kept.parts.images)
            self.output.write(shard, kept)

    def _with_scores(self, kept: Batch, ledger: pa.Table) -> Batch:
        """The batch with the scores as columns, when the recipe wants them in the output."""
        if self.plan.recipe.write is None or not self.plan.recipe.write.scores:
            return kept
        images = ledger.filter(pc.and_(pc.is_valid(ledger["image"]), pc.equal(ledger["verdict"], "kept")))
        _, first = np.unique(ledger["sample"].to_numpy(), return_index=True)
        samples = ledger.take(pa.array(first))
        samples = samples.filter(pc.equal(samples["sample_verdict"], "kept"))
        of_images: dict[str, pa.Array] = {}
        of_samples: dict[str, pa.Array] = {}
        for scorer in self.plan.scorers:
            for name in scorer.columns:
                if scorer.unit == "sample":
                    of_samples[name] = samples[name].combine_chunks()
                else:
                    of_images[name] = images[name].combine_chunks()
        taken = sorted({*of_images, *of_samples} & set(kept.table.column_names))
        if taken:
            raise OutputError(
                f"the source has columns named like scores ({', '.join(taken)}), which --scores would replace; "
                "rename them, or run without --scores and take the scores from the ledger"
            )
        return kept.with_table(add_scores(kept.table, kept.layout, kept.parts, of_images, of_samples))

    def _write_vectors(self, scored: ScoredShard, table: pa.Table) -> None:
        """The vectors of the ledger's rows: image vectors and, where texts were embedded, each one's best text."""
        rows = np.flatnonzero(pc.is_valid(table["image"]).to_numpy())
        images = [chunk.batch.image_vectors for chunk in scored.chunks]
        self._save(self.folder.vectors(scored.shard.number, "image"), images, rows, table.num_rows)
        if self.plan.needs_texts:
            texts = []
            for chunk in scored.chunks:
                found = chunk.batch.text_vectors
                _, best = best_texts(chunk.batch.image_vectors, chunk.batch.parts.image_samples, found)
                nothing = np.full((1, chunk.batch.image_vectors.shape[1]), np.nan, dtype=np.float32)
                texts.append(np.concatenate([found.vectors, nothing])[best])
            self._save(self.folder.vectors(scored.shard.number, "text"), texts, rows, table.num_rows)

    def _save(
        self, path: Path, vectors: Sequence[npt.NDArray[np.float32]], rows: npt.NDArray[np.int64], count: int
    ) -> None:
        stacked = np.concatenate(vectors)
        placed = np.full((count, stacked.shape[1]), np.nan, dtype=np.float32)
        placed[rows] = stacked
        with atomic(path) as file:
            np.save(file, placed, allow_pickle=False)

    def _write_part(self, kind: Kind, shard: int, table: pa.Table) -> Counts:
        write_table(self.folder.part(kind, shard), table.replace_schema_metadata(self.metadata))
        return count(table)


def _kept_batch(scored: ScoredShard, verdicts: Sequence[Verdicts]) -> Batch:
    """What stays of a shard after its local rules, with the bytes that were fetched on the way."""
    pieces = list(zip(scored.chunks, verdicts, strict=True))
    kept = Batch.concat([chunk.batch.kept(decided.images, decided.samples) for chunk, decided in pieces])
    keys = [(chunk.number, image) for chunk, decided in pieces for image in np.flatnonzero(decided.images).tolist()]
    kept.bytes = StoredBytes(store=scored.store, keys=keys, sources=kept.parts.images)
    return kept


def _updated(ledger: pa.Table, image_rows: npt.NDArray[np.int64], verdicts: Verdicts) -> pa.Table:
    """The ledger with the verdicts of the survivors of the first pass brought up to date."""
    columns = {name: ledger[name].to_pylist() for name in ("verdict", "rule", "reason", "sample_verdict")}
    kept_samples = np.flatnonzero(pc.equal(ledger["sample_verdict"], "kept").to_numpy())
    samples = ledger["sample"].to_numpy()
    _, places = np.unique(samples[kept_samples], return_inverse=True)
    bare = pc.is_null(ledger["image"]).to_numpy()
    for row, sample in zip(kept_samples.tolist(), places.tolist(), strict=True):
        if not verdicts.samples[sample]:
            columns["sample_verdict"][row] = "failed" if verdicts.sample_failed[sample] else "dropped"
            if bare[row]:
                columns["verdict"][row] = "dropped"
                columns["rule"][row] = verdicts.sample_rules[sample]
                columns["reason"][row] = verdicts.sample_reasons[sample]
    for image, row in enumerate(image_rows.tolist()):
        if not verdicts.images[image]:
            columns["verdict"][row] = "dropped"
            columns["rule"][row] = verdicts.image_rules[image]
            columns["reason"][row] = verdicts.image_reasons[image]
    for name, values in columns.items():
        place = ledger.schema.get_field_index(name)
        ledger = ledger.set_column(place, ledger.schema.field(place), pa.array(values, pa.string()))
    return ledger
