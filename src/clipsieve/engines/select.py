"""The second pass: rules that need the whole data set judge the survivors of the first, and what stays is written.

``NAME in top N%`` comes first, near duplicates last, and each sees only the images that everything before it left.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.contracts import Reader, Shard
from clipsieve.core.decide import BoundRule, Verdicts
from clipsieve.core.layout import Mask
from clipsieve.core.ledger import Counts
from clipsieve.core.rules import rank_mask
from clipsieve.engines.chunk import geometry
from clipsieve.engines.commit import Committer
from clipsieve.engines.duplicates import Earlier, Found, find
from clipsieve.engines.staging import staged
from clipsieve.engines.survivors import Survivors

if TYPE_CHECKING:
    from clipsieve.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a rule over the whole data set chose among a shard's survivors, ``chosen`` and ``values`` ``(units,)``."""

    bound: BoundRule
    chosen: Mask
    values: npt.NDArray[np.float64]
    edge: float

    def apply(self, verdicts: Verdicts) -> None:
        """Drops what was not chosen."""
        text = self.bound.rule.text
        if self.bound.unit == "sample":
            out = np.flatnonzero(verdicts.samples & ~self.chosen)
            verdicts.drop_samples(out, text, self._reasons(out))
        else:
            out = np.flatnonzero(verdicts.images & ~verdicts.exempt & ~self.chosen)
            verdicts.drop_images(out, text, self._reasons(out), whole_sample=self.bound.drop == "sample")

    def _reasons(self, units: npt.NDArray[np.int64]) -> list[str]:
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


class Selector:
    """Judges all survivors and commits the shards that are not done yet."""

    def __init__(self, committer: Committer, reader: Reader, earlier: Earlier | None = None) -> None:
        self.plan: Plan = committer.plan
        self.folder = committer.folder
        self.committer = committer
        self.reader = reader
        self.earlier = earlier

    def run(
        self, shards: Sequence[Shard], done: set[int], progress: Callable[[int, int], None]
    ) -> Mapping[int, Counts]:
        """Commits the shards that are not in ``done``; ``progress`` hears of the search for near duplicates."""
        columns = ["image", "sample", "verdict", "error", "sample_verdict"]
        columns += [bound.rule.name for bound in self.plan.ranks]
        if self.plan.dedup is not None:
            columns += ["sample_id", "reference", *filter(None, [self.plan.dedup.column]), *self.plan.dedup.preference]
        columns = list(dict.fromkeys(columns))
        found = {
            shard.number: Survivors.of(self.folder.part_table("scores", shard.number, columns)) for shard in shards
        }
        ranked = [self._selections(bound, list(found.values())) for bound in self.plan.ranks]
        for chosen in ranked:
            for of, selection in zip(found.values(), chosen, strict=True):
                of.selections.append(selection)
        if self.plan.dedup is not None:
            duplicates = find(self.plan.dedup, self.folder, found, self.earlier, progress)
            for number, of in found.items():
                of.selections.append(duplicates[number])
        return {shard.number: self._commit(shard, found[shard.number]) for shard in shards if shard.number not in done}

    def _selections(self, bound: BoundRule, found: Sequence[Survivors]) -> list[Selection]:
        """What a rank chooses over all shards."""
        values = [_values(of, bound) for of in found]
        everything = np.concatenate(values)
        rank = bound.rule.rank
        assert rank is not None
        chosen = rank_mask(everything, rank)
        edge = (np.min if rank.side == "top" else np.max)(everything[chosen]) if chosen.any() else np.nan
        masks = np.split(chosen, np.cumsum([len(part) for part in values])[:-1])
        return [
            Selection(bound=bound, chosen=mask, values=part, edge=float(edge))
            for mask, part in zip(masks, values, strict=True)
        ]

    def _commit(self, shard: Shard, found: Survivors) -> Counts:
        """Commits a shard to the ledger with what the selections leave, its output first."""
        scores = self.folder.part_table("scores", shard.number)
        for selection in found.selections:
            if isinstance(selection, Found):
                scores = selection.with_columns(scores, found.image_rows)
        if not len(found.sample_rows):
            return self.committer.write_part("ledger", shard.number, scores)
        images, samples = found.masks()
        folder = self.folder.staged(shard.number)
        with staged(folder, self.reader, shard, images, samples, found.errors()) as batch:
            verdicts = found.verdicts(geometry(batch, pairs=False))
            table = _updated(scores, found, verdicts)
            self.committer.write_output(shard.number, batch.kept(verdicts.images, verdicts.samples), table)
        counts = self.committer.write_part("ledger", shard.number, table)
        shutil.rmtree(folder, ignore_errors=True)
        return counts


def _values(found: Survivors, bound: BoundRule) -> npt.NDArray[np.float64]:
    """Values of the units that a rank judges, in input order; NaN for a failed image that is kept."""
    table = found.table.take(pa.array(found.sample_rows if bound.unit == "sample" else found.image_rows))
    values = np.asarray(table[bound.rule.name].to_numpy(), dtype=np.float64)
    if bound.rule.missing is None:
        return values
    return np.where(np.isnan(values) & pc.is_null(table["error"]).to_numpy(), bound.rule.missing, values)


def _updated(ledger: pa.Table, found: Survivors, verdicts: Verdicts) -> pa.Table:
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
    for image, row in enumerate(found.image_rows.tolist()):
        if not verdicts.images[image]:
            columns["verdict"][row] = "dropped"
            columns["rule"][row] = verdicts.image_rules[image]
            columns["reason"][row] = verdicts.image_reasons[image]
    for name, values in columns.items():
        place = ledger.schema.get_field_index(name)
        ledger = ledger.set_column(place, ledger.schema.field(place), pa.array(values, pa.string()))
    return ledger
