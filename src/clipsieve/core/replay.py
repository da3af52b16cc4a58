"""Rules decided again over a whole ledger at once, in arrays: what they keep, what they drop, and what nobody knows.

The verdicts are those of ``clipsieve.core.decide``, without the reasons: a million rows take a fraction of a second.
A score that early exit left out is null in the ledger; an image whose fate hangs on one is unknown, and counted as
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.decide import HOLLOW, BoundRule
from clipsieve.core.layout import Mask
from clipsieve.core.ledger import begins_sample, pair_rows
from clipsieve.core.rules import Rule, rank_mask

Codes = npt.NDArray[np.int16]

KEPT, FAILED, BESIDE, UNKNOWN = -1, -2, -3, -4
"""What becomes of a row when no rule drops it; ``BESIDE``: it goes with a failed image of its sample, or for having no
content at all."""

REPLAYED = ("shard", "image", "sample", "verdict", "rule", "error", "sample_verdict", "has_text")
"""The columns that a ``Replay`` needs beside the scores."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What ``rules``, in the order they decide, make of a ledger.

    ``out_by`` ``(rows,)`` is for each row the number of the rule that drops it, or ``KEPT``, ``FAILED``, ``BESIDE`` or
    ``UNKNOWN``; ``samples_out_by`` ``(samples,)`` the same for samples. ``lacking`` counts, by score, the images that
    are unknown for want of it, themselves or with their sample.
    """

    rules: tuple[BoundRule, ...]
    out_by: Codes
    samples_out_by: Codes
    lacking: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptRatio:
    """How ``image_text_ratio`` with ``count: kept`` comes about: of the images that the first ``at`` rules leave.

    ``words`` ``(samples,)`` is what they are divided by, NaN where it is not known.
    """

    at: int
    words: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Column:
    """A score by ledger row, ``(rows,)``: ``computed`` says where it is not null.

    Texts are numbers of ``words``, so that a rule looks at each different one once.
    """

    values: npt.NDArray[Any]
    computed: Mask
    words: npt.NDArray[Any] | None = None

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Column:
        """That of a column of numbers or texts."""
        computed = pc.is_valid(column).to_numpy()
        if pa.types.is_floating(column.type):
            return cls(np.asarray(column.to_numpy(), dtype=np.float64), computed)
        coded = pc.dictionary_encode(column).unify_dictionaries().combine_chunks()
        words = [*coded.dictionary.to_pylist(), None]
        return cls(pc.fill_null(coded.indices, len(words) - 1).to_numpy(), computed, np.array(words, dtype=object))

    def passing(self, rule: Rule) -> Mask:
        """Which values pass; meaningless where nothing was computed."""
        if self.words is None:
            return rule.passes(self.values)
        passing: Mask = rule.passes(self.words)[self.values]
        return passing

    def at(self, rows: npt.NDArray[np.int64]) -> Column:
        """Those of some rows."""
        return Column(self.values[rows], self.computed[rows], self.words)


class Replay:
    """The ledger of a finished run as arrays.

    ``is_image`` ``(rows,)`` marks the rows of images, ``samples`` ``(rows,)`` numbers the samples, and ``starts``
    ``(samples,)`` is the first row of each. ``exempt`` ``(rows,)`` marks failed images that stay whatever rules say.
    """

    def __init__(self, ledger: pa.Table) -> None:
        self.ledger = ledger
        self.rows = ledger.num_rows
        self.is_image: Mask = pc.is_valid(ledger["image"]).to_numpy()
        begins = begins_sample(ledger)
        self.starts = np.flatnonzero(begins)
        self.samples = np.cumsum(begins) - 1
        self.content: Mask = (ledger["has_text"].to_numpy() | ~self.is_image)[self.starts]
        failed = pc.equal(ledger["verdict"], "failed").to_numpy()
        self.exempt: Mask = self.is_image & pc.is_valid(ledger["error"]).to_numpy() & ~failed
        # What goes before any rule is asked: failed images, with their samples where on_error says so, and documents
        # without content.
        lost = pc.equal(ledger["sample_verdict"], "failed").to_numpy()
        hollow = pc.fill_null(pc.equal(ledger["rule"], HOLLOW), False).to_numpy()
        self.at_first: Codes = np.select([failed, lost | hollow], [FAILED, BESIDE], KEPT).astype(np.int16)
        of_samples = np.select([lost, hollow], [FAILED, BESIDE], KEPT)[self.starts]
        self.samples_at_first: Codes = of_samples.astype(np.int16)
        self._columns: dict[str, Column] = {}

    def has(self, name: str) -> bool:
        """Whether the ledger has the score."""
        return name in self.ledger.column_names

    def column(self, name: str) -> Column:
        """A score of images or samples by ledger row; one that the ledger does not have is nowhere computed."""
        if name not in self._columns:
            nowhere = Column(np.full(self.rows, np.nan), np.zeros(self.rows, dtype=bool))
            self._columns[name] = Column.of(self.ledger[name]) if self.has(name) else nowhere
        return self._columns[name]

    def pairs(self, name: str) -> tuple[Column, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """A score of pairs, a value a pair, and the rows of the first and of the second image of each."""
        lists = self.ledger[name]
        return Column.of(pc.list_flatten(lists)), *pair_rows(lists)

    def computed(self, name: str) -> Mask:
        """Which rows have a value of a score; of pairs all that they could have, ``(rows,)``."""
        if not (self.has(name) and pa.types.is_list(self.ledger[name].type)):
            return self.column(name).computed
        column, first, _ = self.pairs(name)
        known = np.ones(self.rows, dtype=bool)
        known[first[~column.computed]] = False
        return known

    def values(self, name: str) -> npt.NDArray[np.float64]:
        """A number for each row, to sort by: NaN where there is none; of pairs an image's highest with any other."""
        if not (self.has(name) and pa.types.is_list(self.ledger[name].type)):
            return self.column(name).values
        column, *ends = self.pairs(name)
        highest = np.full(self.rows, np.nan)
        for rows in ends:
            np.fmax.at(highest, rows, column.values)
        return highest

    def decide(self, rules: Sequence[BoundRule], ratio: KeptRatio | None = None) -> Decision:
        """What ``rules`` keep and drop; those of a share of the data set (``in top 30%``) come after all others."""
        local = [bound for bound in rules if bound.rule.rank is None]
        ranks = [bound for bound in rules if bound.rule.rank is not None]
        state = _State(self)
        for number, bound in enumerate(local):
            if ratio is not None and number == ratio.at:
                state.count_kept(ratio)
            state.apply(number, bound)
        if ratio is not None and ratio.at == len(local):
            state.count_kept(ratio)
        # Each share is of what the other rules leave, before any of the shares is applied.
        shares = [state.outside(bound) for bound in ranks]
        for number, (bound, outside) in enumerate(zip(ranks, shares, strict=True), len(local)):
            state.take_out(number, bound, *outside)
        return state.decision((*local, *ranks))


class _State:
    """Who is still in while rules decide one after the other."""

    def __init__(self, of: Replay) -> None:
        self.of = of
        self.out_by = of.at_first.copy()
        self.samples_out_by = of.samples_at_first.copy()
        self.wanted_by: Codes = np.full(of.rows, -1, dtype=np.int16)
        self.wanted: list[str] = []
        self.kept_ratio: dict[str, Column] = {}

    @property
    def images(self) -> Mask:
        """Which rows are images that are in."""
        images: Mask = self.of.is_image & (self.out_by == KEPT)
        return images

    def apply(self, number: int, bound: BoundRule) -> None:
        """Applies one rule to what is in."""
        judged = self.images & ~self.of.exempt
        name = bound.rule.name
        if bound.unit == "pair" and not self.of.has(name):
            paired = np.bincount(self.of.samples[judged], minlength=len(self.of.starts)) > 1
            self._apply_groups(number, bound, self.of.column(name), judged & paired[self.of.samples], self.of.samples)
        elif bound.unit == "pair":
            column, first, second = self.of.pairs(name)
            present = judged[first] & judged[second]
            self._apply_groups(number, bound, column, present, self.of.samples[first])
        elif bound.rule.quantifier:
            self._apply_groups(number, bound, self.of.column(name), judged, self.of.samples)
        else:
            units = self.samples_out_by == KEPT if bound.unit == "sample" else judged
            column = self._column(bound)
            failing: Mask = units & column.computed & ~column.passing(bound.rule)
            self.take_out(number, bound, failing, units & ~column.computed)

    def outside(self, bound: BoundRule) -> tuple[Mask, Mask]:
        """Of the units of a rule on a share those that are outside, and those that lack the score."""
        column, rule = self._column(bound), bound.rule
        assert rule.rank is not None
        units: Mask = self.samples_out_by == KEPT if bound.unit == "sample" else self.images
        judged: Mask = units if bound.unit == "sample" else units & ~self.of.exempt
        values = column.values
        if rule.missing is not None:
            values = np.where(judged & column.computed & np.isnan(values), rule.missing, values)
        inside = rank_mask(np.where(units & column.computed, values, np.nan), rule.rank)
        return judged & column.computed & ~inside, judged & ~column.computed

    def take_out(self, number: int, bound: BoundRule, failing: Mask, unknown: Mask) -> None:
        """Takes out the units of a rule, samples or images, that fail, and those that cannot be judged."""
        still_in = self.samples_out_by == KEPT if bound.unit == "sample" else self.images
        failing, unknown = failing & still_in, unknown & still_in
        if bound.unit == "sample":
            self._drop_samples(number, failing)
            self._doubt_samples(bound.rule.name, unknown)
        elif bound.drop == "sample":
            self._drop_samples(number, self._any(failing))
            self._doubt_samples(bound.rule.name, self._any(unknown))
        else:
            self.out_by[failing] = number
            self._doubt(bound.rule.name, unknown)
        self._drop_empty()

    def count_kept(self, ratio: KeptRatio) -> None:
        """Counts the images that are in, for the ratio of a sample's images to its words."""
        left = np.bincount(self.of.samples[self.images], minlength=len(self.of.starts))
        values = np.where(left == 0, 0.0, left / ratio.words)
        self.kept_ratio["image_text_ratio"] = Column(values, ~np.isnan(values) & ~self._any(self.out_by == UNKNOWN))

    def decision(self, rules: tuple[BoundRule, ...]) -> Decision:
        """The state as it is."""
        bare = ~self.of.is_image
        self.out_by[bare] = self.samples_out_by[self.of.samples[bare]]
        unknown = self.wanted_by[self.of.is_image & (self.out_by == UNKNOWN)]
        lacking = np.bincount(unknown, minlength=len(self.wanted)).tolist()
        return Decision(
            rules=rules,
            out_by=self.out_by,
            samples_out_by=self.samples_out_by,
            lacking={name: number for name, number in zip(self.wanted, lacking, strict=True) if number},
        )

    def _column(self, bound: BoundRule) -> Column:
        """The score of a rule by its units."""
        if bound.rule.name in self.kept_ratio:
            return self.kept_ratio[bound.rule.name]
        column = self.of.column(bound.rule.name)
        return column.at(self.of.starts) if bound.unit == "sample" else column

    def _apply_groups(
        self, number: int, bound: BoundRule, column: Column, present: Mask, groups: npt.NDArray[np.int64]
    ) -> None:
        """Applies a rule on any or all values of a sample, of which ``present`` are of images that are in."""
        passing = column.passing(bound.rule)

        def counted(values: Mask) -> Mask:
            found: Mask = np.bincount(groups[values], minlength=len(self.of.starts)) > 0
            return found

        passed = counted(present & column.computed & passing)
        failed = counted(present & column.computed & ~passing)
        open_ = counted(present & ~column.computed) | self._any(self.of.is_image & (self.out_by == UNKNOWN))
        in_ = self.samples_out_by == KEPT
        if bound.rule.quantifier == "any":
            failing, unknown = in_ & ~passed & ~open_, in_ & ~passed & open_
        else:
            failing, unknown = in_ & (failed | ~(passed | open_)), in_ & ~failed & open_
        self._drop_samples(number, failing)
        self._doubt_samples(bound.rule.name, unknown)

    def _drop_samples(self, number: int, samples: Mask) -> None:
        """Drops ``samples`` with all of their rows that are in, or of which it is not known."""
        self.samples_out_by[samples] = number
        self.out_by[self._rows(samples) & ((self.out_by == KEPT) | (self.out_by == UNKNOWN))] = number

    def _doubt_samples(self, name: str, samples: Mask) -> None:
        """Nobody knows of ``samples`` that are in."""
        samples = samples & (self.samples_out_by == KEPT)
        self.samples_out_by[samples] = UNKNOWN
        self._doubt(name, self._rows(samples) & (self.out_by == KEPT))

    def _doubt(self, name: str, rows: Mask) -> None:
        if not rows.any():
            return
        if name not in self.wanted:
            self.wanted.append(name)
        self.out_by[rows] = UNKNOWN
        self.wanted_by[rows] = self.wanted.index(name)

    def _drop_empty(self) -> None:
        """A sample without an image that is in goes, unless it holds other content or some of its images may be in."""
        empty = (self.samples_out_by == KEPT) & ~self.of.content & ~self._any(self.images)
        if not empty.any():
            return
        in_doubt = empty & self._any(self.out_by == UNKNOWN)
        last = np.maximum.reduceat(np.where(self.out_by >= 0, np.arange(self.of.rows), -1), self.of.starts)
        self.samples_out_by[empty] = np.where(last >= 0, self.out_by[last], FAILED)[empty]
        self.samples_out_by[in_doubt] = UNKNOWN

    def _rows(self, samples: Mask) -> Mask:
        """The rows of ``samples``."""
        return samples if len(samples) == self.of.rows else samples[self.of.samples]

    def _any(self, rows: Mask) -> Mask:
        """Which samples have any of ``rows``."""
        if len(self.of.starts) == self.of.rows:  # a row a sample
            return rows
        found: Mask = np.logical_or.reduceat(rows, self.of.starts)
        return found
