"""The second pass: rules that need the whole data set judge the survivors of the first, and what stays is written.

``NAME in top N%`` comes first, near duplicates last, and each sees only the images that everything before it left.
Shards are read and written by the engine's workers where it has some; here the values of a rank are in memory, 8 bytes
for each image or sample that it judges and 17 more while it is decided, and then 1 byte for each: what was chosen.
What the search for near duplicates takes is said in ``compared`` and in ``dedup.distributed``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core import storage
from clipsieve.core.contracts import Reader, Shard
from clipsieve.core.decide import BoundRule, Verdicts
from clipsieve.core.layout import Mask
from clipsieve.core.rules import rank_mask
from clipsieve.core.spread import Spread
from clipsieve.engines.chunk import geometry
from clipsieve.engines.commit import Committer
from clipsieve.engines.duplicates import Found, FoundFile, find
from clipsieve.engines.ledger_columns import Earlier
from clipsieve.engines.staging import staged
from clipsieve.engines.survivors import Selected, Survivors, reading
from clipsieve.errors import ClipsieveError
from clipsieve.runfolder import RunFolder

if TYPE_CHECKING:
    from clipsieve.plan import Plan

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a rule over the whole data set chose among a shard's survivors, ``(units,)``; ``edge`` is the last value
    that is in."""

    bound: BoundRule
    chosen: Mask
    edge: float

    def apply(self, verdicts: Verdicts, of: Survivors) -> None:
        """Drops what was not chosen."""
        text = self.bound.rule.text
        if self.bound.unit == "sample":
            out = np.flatnonzero(verdicts.samples & ~self.chosen)
            verdicts.drop_samples(out, text, self._reasons(_values(of, self.bound)[out]))
        else:
            out = np.flatnonzero(verdicts.images & ~verdicts.exempt & ~self.chosen)
            reasons = self._reasons(_values(of, self.bound)[out])
            verdicts.drop_images(out, text, reasons, whole_sample=self.bound.drop == "sample")

    def _reasons(self, values: Values) -> list[str]:
        """Why units with these ``values`` are out."""
        rank = self.bound.rule.rank
        assert rank is not None
        name, side = self.bound.rule.name, f"{rank.side} {rank.percent:g}%"
        after = ", where earlier ones go first"
        return [
            f"{name} missing: {self.bound.why_missing}"
            if np.isnan(value)
            else f"{name} {value:.5g} not in {side} (cut at {self.edge:.5g}{after * (value == self.edge)})"
            for value in values.tolist()
        ]


class Selector:
    """Judges all survivors and commits the shards that are not done yet.

    ``workers`` do so in other processes, where there are some. Without, this one does: commits go one after the other,
    as a reader is not for several threads, and one shard is in memory then.
    """

    def __init__(
        self, committer: Committer, reader: Reader, earlier: Earlier | None = None, workers: Spread | None = None
    ) -> None:
        self.plan: Plan = committer.plan
        self.folder = committer.folder
        self.committer = committer
        self.reader = reader
        self.earlier = earlier
        self.workers = workers

    def run(self, shards: Sequence[Shard], done: set[int], progress: Callable[[int, int], None]) -> None:
        """Commits the shards that are not in ``done``; ``progress`` hears of the search for near duplicates."""
        selected = self._selected([shard.number for shard in shards])
        ranked = [bound.rule.name for bound in self.plan.ranks]
        with ExitStack() as opened:
            found = None
            if (by := self.plan.dedup) is not None:
                known = [(shard.number, of) for shard, of in zip(shards, selected, strict=True)]
                path, images = find(by, self.folder, known, ranked, self.earlier, self.workers, progress)
                found = FoundFile(path, opened.enter_context(storage.opened(path)), by, images)

            def judged() -> Iterator[Judged]:
                for place, (shard, of) in enumerate(zip(shards, selected, strict=True)):
                    if shard.number not in done:
                        yield Judged(shard=shard, selections=of, found=found.shard(place) if found else None)

            commit = Commit(committer=self.committer, reader=self.reader)
            deque(self.workers(commit, judged()) if self.workers else map(commit, judged()), maxlen=0)

    def _selected(self, numbers: Sequence[int]) -> Sequence[tuple[Selection, ...]]:
        """What the ranks choose of each shard; all of them judge the same units."""
        if not self.plan.ranks:
            return [()] * len(numbers)
        read = reading(self.folder, self.workers)
        values = list(read(ReadValues(folder=self.folder, ranks=self.plan.ranks), numbers))
        ends = [np.cumsum([len(of[place]) for of in values])[:-1] for place in range(len(self.plan.ranks))]
        chosen = []
        for place, bound in enumerate(self.plan.ranks):
            everything = np.concatenate([of.pop(0) for of in values])
            chosen.append(_choose(bound, everything, ends[place]))
        return list(zip(*chosen, strict=True))


@dataclass(frozen=True, kw_only=True)
class ReadValues:
    """Work: the values of a shard's survivors that each of ``ranks`` judges."""

    folder: RunFolder
    ranks: tuple[BoundRule, ...]

    def __call__(self, shard: int) -> list[Values]:
        columns = ["image", "sample", "verdict", "error", "sample_verdict", *(bound.rule.name for bound in self.ranks)]
        found = Survivors.of(self.folder.part_table("scores", shard, list(dict.fromkeys(columns))))
        return [_values(found, bound) for bound in self.ranks]


def _choose(bound: BoundRule, values: Values, ends: npt.NDArray[np.int64]) -> list[Selection]:
    """What a rank chooses among the ``values`` of all shards, which end at ``ends``."""
    rank = bound.rule.rank
    assert rank is not None
    chosen = rank_mask(values, rank)
    edge = (np.min if rank.side == "top" else np.max)(values[chosen]) if chosen.any() else np.nan
    return [Selection(bound=bound, chosen=mask, edge=float(edge)) for mask in np.split(chosen, ends)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """A shard, what the ranks chose of it, and what was found for it, where near duplicates are sought."""

    shard: Shard
    selections: Sequence[Selection]
    found: Found | None


@dataclass(frozen=True, kw_only=True)
class Commit:
    """Work: commits a shard to the ledger with what the selections leave, its output first."""

    committer: Committer
    reader: Reader

    def __call__(self, judged: Judged) -> None:
        part = self.committer.folder.part("ledger", judged.shard.number)
        if storage.exists(part):
            return  # by an attempt that died while it cleaned up
        try:
            self._commit(judged)
        except (OSError, ClipsieveError):
            # An attempt that was taken for dead may still come to its end, and remove what this one reads.
            if not storage.exists(part):
                raise

    def _commit(self, judged: Judged) -> None:
        committer, number = self.committer, judged.shard.number
        scores = committer.folder.part_table("scores", number)
        of, selections = Survivors.of(scores), list[Selected](judged.selections)
        if judged.found is not None:
            selections.append(judged.found)
            scores = judged.found.with_columns(scores, of.image_rows[of.compared(judged.selections)])
        if not len(of.sample_rows):
            committer.write_part("ledger", number, scores)
            return
        images, samples = of.masks()
        folder = committer.folder.staged(number)
        with staged(folder, self.reader, judged.shard, images, samples, of.errors()) as batch:
            verdicts = of.verdicts(selections, geometry(batch, pairs=False))
            table = _updated(scores, of, verdicts)
            committer.write_output(number, batch.kept(verdicts.images, verdicts.samples), table)
        committer.write_part("ledger", number, table)
        storage.remove(folder)


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
