"""A finished run's rules, and any others, decided over its whole ledger without the model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.api.added import added_options, ledger_part, whole_ledger
from clipsieve.api.runs import Run
from clipsieve.core.decide import BoundRule
from clipsieve.core.layout import Mask
from clipsieve.core.replay import KEPT, REPLAYED, Decision, KeptRatio, Replay
from clipsieve.core.rules import check_name, parse
from clipsieve.errors import RunFolderError
from clipsieve.plan import Plan, make_plan
from clipsieve.recipe import Recipe
from clipsieve.report.suggest import FACTS, Suggestion, asked_shares, suggest
from clipsieve.report.tuning import Comparison, compare
from clipsieve.runfolder import RunFolder
from clipsieve.scorers import COLUMNS, DATASET_COLUMNS


class Tuning:
    """Decides rules over the ledger of ``run``; its scores are read once, a second or so for a million rows.

    Raises ``RunFolderError`` when the run is not finished, is of an older version, or had filters in Python, which no
    ledger can replay.
    """

    def __init__(self, run: Run, ledger: pa.Table | None = None) -> None:
        """``ledger`` is the run's whole one, where it is in memory already."""
        shards = run.shards()
        if run.executed.get("filters"):
            names = ", ".join(run.executed["filters"])
            raise RunFolderError(f"{run.path} was decided by filters in Python too ({names}); they cannot be replayed")
        folder = RunFolder(run.path)
        self.schema: pa.Schema = ledger_part(folder, shards[0].number).schema
        """The columns of the ledger, with those that were added to it."""
        if missing := set(REPLAYED) - set(self.schema.names):
            raise RunFolderError(f"{run.path} is of an older version: its ledger has no {min(missing)}; run it again")
        self.run = run
        self.replay = Replay(whole_ledger(folder, [*REPLAYED, *self.scores]) if ledger is None else ledger)

    @cached_property
    def scores(self) -> list[str]:
        """The scores of the ledger that rules can name."""
        return [name for name in self.schema.names if name in COLUMNS or name in DATASET_COLUMNS]

    @property
    def plan(self) -> Plan:
        """The run's own rules, as they were planned."""
        return self.run.plan

    def altered(self, write: Any = None, **changes: Any) -> Recipe:
        """The run's recipe with ``changes``, as ``Recipe.altered`` makes it.

        Scores that were added to the run are in it with the options they were computed with.
        """
        recipe = self.run.recipe.altered(write, **changes)
        named = [rule.name for keep in recipe.keep for rule in parse(keep.rule)]
        options = dict(self._added[name] for name in (*named, *recipe.scores) if name in self._added)
        return recipe.model_copy(update={"scores": {**recipe.scores, **options}})

    @cached_property
    def _added(self) -> dict[str, tuple[str, dict[str, Any]]]:
        return added_options(RunFolder(self.run.path))

    def planned(self, keep: Any) -> Plan:
        """The plan of the run's recipe with the rules ``keep``, as in a recipe, in place of its own.

        Raises ``RuleError`` or ``RecipeError``, or ``RunFolderError`` for a score that must be added first.
        """
        plan = make_plan(self.altered(keep=keep), self.run.executed["layout"])
        self.check_given(plan)
        return plan

    def check_given(self, plan: Plan) -> None:
        """Raises ``RunFolderError`` when the run lacks a score of the whole data set that ``plan`` needs."""
        if missing := set(plan.given) - set(self.schema.names):
            name = min(missing)
            raise RunFolderError(f"{self.run.path} has no {name} yet: clipsieve add-score {self.run.path} {name}")

    def decide(self, keep: Any) -> Decision:
        """What the rules ``keep`` would do; raises as ``planned`` does."""
        return self.decided(self.planned(keep))

    def compare(self, keep: Any) -> Comparison:
        """The rules ``keep`` beside the run's own; raises as ``planned`` does."""
        return compare(self.replay, self.own, self.decide(keep), lambda rules: self.decide(as_keep(rules)))

    def suggest(self, shares: str | Sequence[str], keep: Any = None) -> list[Suggestion]:
        """Thresholds by share: ``30%`` for each rule that has a threshold, ``clip_score=30%`` for one score.

        The rules are ``keep``, or the run's own; without any, ``30%`` is for every score that is no mere fact such as
        the width. Raises ``RuleError``.
        """
        plan = self.plan if keep is None else self.planned(keep)
        rules = {bound.rule.name: bound.rule for bound in (*plan.rules, *plan.ranks)}
        numbers = [name for name in self.scores if not pa.types.is_string(self.schema.field(name).type)]
        named = [name for name in rules if name in numbers] or [name for name in numbers if name not in FACTS]
        found = []
        for name, percent in asked_shares(shares, named).items():
            check_name(name, numbers)
            found.append(suggest(name, *self._values(name), percent, rules.get(name)))
        return found

    def _values(self, name: str) -> tuple[npt.NDArray[np.float64], Mask]:
        """A score by its units, images, samples or pairs, and which of them were computed."""
        if pa.types.is_list(self.schema.field(name).type):
            pairs, *_ = self.replay.pairs(name)
            return pairs.values, pairs.computed
        of_samples = self.schema.field(name).metadata[b"unit"] == b"sample"
        units = self.replay.starts if of_samples else np.flatnonzero(self.replay.is_image)
        column = self.replay.column(name).at(units)
        return column.values, column.computed

    @cached_property
    def own(self) -> Decision:
        """What the run's own rules did, near duplicates apart."""
        return self.decided(self.plan)

    def decided(self, plan: Plan) -> Decision:
        """What the rules of ``plan`` do, up to the search for near duplicates."""
        return self.replay.decide((*plan.rules, *plan.ranks), self._ratio(plan))

    def with_suggested(self, suggested: Sequence[Suggestion], keep: Any = None) -> list[dict[str, Any]]:
        """The rules ``keep``, or the run's own, with the thresholds of those suggested; the rest of a rule stays."""
        plan = self.plan if keep is None else self.planned(keep)
        rules = as_keep((*plan.rules, *plan.ranks))
        texts = {one.name: one.rule for one in suggested}
        replaced = [
            {**rule, "rule": texts.get(bound.rule.name, rule["rule"])}
            for rule, bound in zip(rules, (*plan.rules, *plan.ranks), strict=True)
        ]
        there = {bound.rule.name for bound in (*plan.rules, *plan.ranks)}
        new = [{"rule": one.rule} for one in suggested if one.name not in there]
        return [rule for n, rule in enumerate(replaced) if rule not in replaced[:n]] + new

    def values(self, name: str) -> npt.NDArray[np.float64]:
        """A number of each ledger row to sort by, ``(rows,)``, NaN where there is none; see ``Replay.values``."""
        return self.replay.values(name)

    def _ratio(self, plan: Plan) -> KeptRatio | None:
        return None if plan.kept_ratio is None else KeptRatio(at=plan.kept_ratio_at, words=self._words)

    @cached_property
    def _words(self) -> npt.NDArray[np.float64]:
        """The words of each sample, at least 1, NaN where the ledger does not tell."""
        replay = self.replay
        if replay.has("words"):
            counted: npt.NDArray[np.float64] = replay.column("words").values[replay.starts]
            return counted.clip(min=1)
        # The ratio tells: it is the images that its own rules had left, over the words.
        before = replay.decide(self.plan.rules[: self.plan.kept_ratio_at])
        left = replay.is_image & (before.out_by == KEPT)
        images = np.bincount(replay.samples[left], minlength=len(replay.starts))
        ratio = replay.column("image_text_ratio").values[replay.starts]
        known = (ratio > 0) & (images > 0)
        words: npt.NDArray[np.float64] = np.full(len(images), np.nan)
        words[known] = np.round(images[known] / ratio[known])
        return words


def as_keep(rules: Sequence[BoundRule]) -> list[dict[str, Any]]:
    """Rules as they stand under ``keep`` in a recipe."""
    return [{"rule": b.rule.text, "drop": b.rule.drop, "missing": b.rule.missing} for b in rules]
