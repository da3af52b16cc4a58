"""What the server holds of a run: its ledger as arrays, and the last few answers that several requests share.

Nothing here knows of a tab or a person: every question brings its rules with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow.compute as pc

from clipsieve.api.added import whole_ledger
from clipsieve.api.runs import Run
from clipsieve.api.tuning import Tuning
from clipsieve.core.ledger import is_numeric
from clipsieve.core.recent import Recent
from clipsieve.core.replay import BESIDE, Decision
from clipsieve.core.rules import Rule, parse
from clipsieve.core.text import printable
from clipsieve.errors import UsageError
from clipsieve.runfolder import RunFolder
from clipsieve.web import queries
from clipsieve.web.queries import Groups, Histogram, Numbers, Past, Rows, Standing, Standings
from clipsieve.web.questions import Gallery, Rules

DECISIONS = 6
"""Decisions that are held, a few MB each at a million rows: those of a drag and of a second tab."""

ORDERS = 128 * 2**20
"""Bytes of the orders that are held, 8 MB each at a million rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decided:
    """A decision and where every row stands by it."""

    decision: Decision
    standings: Standings


class View:
    """A finished run, held open for as many tabs as there are. Safe to use from several threads.

    Raises ``RunFolderError`` for a run that is not finished or that cannot be decided again.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        run.shards()  # or says that it is not finished
        self.ledger = whole_ledger(RunFolder(run.path)).combine_chunks()
        self.tuning = Tuning(run, self.ledger)
        self.rows = self.ledger.num_rows
        self._decisions: Recent[Decided] = Recent(DECISIONS)
        self._orders: Recent[Rows] = Recent(ORDERS, lambda rows: rows.nbytes)
        self._values: Recent[Numbers] = Recent(64)
        self._histograms: Recent[Histogram | None] = Recent(64)
        self._deciding = Lock()

    @cached_property
    def key(self) -> str:
        """Differs between runs, so that a browser may keep their images for good."""
        stat = (self.run.path / "recipe.yaml").stat()
        told = f"{self.run.path.resolve()} {stat.st_mtime_ns} {stat.st_size}"
        return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:12]

    @cached_property
    def past(self) -> Past:
        """What the run made of its rows."""
        dropped_by = self.ledger["rule"]
        dedup = self.tuning.plan.dedup
        found = np.zeros(self.rows, dtype=bool)
        if dedup is not None:
            found = pc.fill_null(pc.equal(dropped_by, dedup.by.text), False).to_numpy()
        kept = pc.equal(self.ledger["verdict"], "kept").to_numpy()
        return Past(is_image=self.tuning.replay.is_image, kept=kept, duplicate=found)

    @cached_property
    def own_rules(self) -> list[dict[str, Any]]:
        """The run's rules, one comparison each, as in a recipe."""
        return [_plain(one) for rules in _parsed(Rules(keep=self.run.recipe.keep)) for one in rules]

    def decided(self, asked: Rules) -> Decided:
        """What the rules of a question do. Raises ``RuleError``."""
        return self._decisions.get(json.dumps(asked.values), lambda: self._decide(asked))

    def _decide(self, asked: Rules) -> Decided:
        # One at a time: two drags at once would only slow each other down.
        with self._deciding:
            decision = self.tuning.decide(asked.values)
        return Decided(decision=decision, standings=queries.standings(decision.out_by, self.past))

    def wrong(self, asked: Rules) -> int | None:
        """The number of the first rule that alone is wrong too; None when only all of them together are."""
        for number, one in enumerate(asked.keep):
            try:
                self.tuning.planned([one.model_dump(exclude_none=True)])
            except UsageError:
                return number
        return None

    def counted(self, asked: Rules) -> dict[str, Any]:
        """The answer to rules: counts, what each rule takes out, and the kept in each histogram that is asked for."""
        found = self.decided(asked)
        rules = found.decision.rules
        images = found.decision.out_by[self.past.is_image]
        out = np.bincount(images[images >= 0], minlength=len(rules)).tolist()
        owners = _owners(asked, [bound.rule for bound in rules])
        kept = (found.standings == Standing.KEPT) & self.past.is_image
        return {
            "rules": [
                {**_told(bound.rule), "drop": bound.drop, "keep": owner, "out": count}
                for bound, owner, count in zip(rules, owners, out, strict=True)
            ],
            "keep": [_plain(one) for rules in _parsed(asked) for one in rules],
            "counts": {**asdict(queries.counts(found.standings, self.past)), "beside": int((images == BESIDE).sum())},
            "images": len(images),
            "lacking": dict(found.decision.lacking),
            "histograms": {
                name: drawn.of(kept)
                for name in asked.histograms
                if name in self.numeric and (drawn := self.histogram(name)) is not None
            },
        }

    @cached_property
    def numeric(self) -> list[str]:
        """The scores that are numbers."""
        fields = {field.name: field.type for field in self.tuning.schema}
        return [name for name in self.tuning.scores if is_numeric(fields[name])]

    def values(self, name: str) -> Numbers:
        """A numeric score by row. Raises ``UsageError`` for what is none."""
        if name not in self.numeric:
            raise UsageError(f"there is no score {printable(name[:60])!r} here; there are {', '.join(self.numeric)}")
        return self._values.get(name, lambda: self.tuning.values(name))

    def histogram(self, name: str) -> Histogram | None:
        """That of a numeric score; None when no image has a value."""
        return self._histograms.get(name, lambda: queries.histogram(self.values(name), self.past.is_image))

    def order(self, asked: Gallery) -> Rows:
        """The rows of a gallery, all of its pages."""
        key = json.dumps(asked.model_dump(exclude={"offset", "limit", "histograms"}))
        return self._orders.get(key, lambda: self._ordered(asked))

    def _ordered(self, asked: Gallery) -> Rows:
        found = self.decided(asked)
        mask = queries.chosen(found.standings, self.past, asked.show)
        if asked.by is not None:
            mask = mask & (found.decision.out_by == asked.by)
        if asked.beside:
            mask = mask & (found.decision.out_by == BESIDE)
        if asked.order == "mixed":
            return queries.ordered(mask, self._orders.get("mixed", lambda: queries.shuffled(self.rows)))
        if asked.order == "near":
            rules = found.decision.rules
            if asked.near is None or asked.near >= len(rules):
                raise UsageError("near the threshold of which rule? there is none of that number")
            rule = rules[asked.near].rule
            bounds = [test.bound for test in rule.tests if isinstance(test.bound, float)]
            if bounds and rule.name in self.numeric:
                return queries.nearest(mask, self._ascending(rule.name), self.values(rule.name), bounds)
            raise UsageError(f"{rule.text} has no threshold to be near to")
        if asked.sort is None:
            rows = np.flatnonzero(mask)
            return rows[::-1] if asked.order == "down" else rows
        return queries.ordered(mask, self._ascending(asked.sort), descending=asked.order == "down")

    def _ascending(self, name: str) -> Rows:
        return self._orders.get(("ascending", name), lambda: queries.ascending(self.values(name)))

    @cached_property
    def groups(self) -> Groups | None:
        """The groups of near duplicates; None for a run that searched for none."""
        if "duplicate_group" not in self.ledger.column_names:
            return None
        group = pc.fill_null(self.ledger["duplicate_group"], -1).to_numpy().astype(np.int64)
        return queries.groups(group, ~self.past.duplicate)


def _parsed(asked: Rules) -> list[tuple[Rule, ...]]:
    return [parse(one.rule, drop=one.drop, missing=one.missing) for one in asked.keep]


def _plain(rule: Rule) -> dict[str, Any]:
    """A rule in its long form, without what is not said."""
    values = {"rule": rule.text, "drop": rule.drop, "missing": rule.missing}
    return {key: value for key, value in values.items() if value is not None}


def _owners(asked: Rules, rules: Sequence[Rule]) -> list[int]:
    """For each rule, in the order they decide, which comparison of the question it is."""
    left: dict[int, Rule] = dict(enumerate(one for rules in _parsed(asked) for one in rules))
    owners = []
    for rule in rules:
        owner = next((number for number, other in left.items() if other == rule), -1)
        left.pop(owner, None)
        owners.append(owner)
    return owners


def _told(rule: Rule) -> Mapping[str, Any]:
    """A rule in pieces, so that the page can move its bounds: the number of each test, low before high."""
    tests = sorted(rule.tests, key=lambda test: test.op[0] == "<")
    bounds = [[test.op, test.bound] for test in tests if test.op[0] in "<>" and isinstance(test.bound, float)]
    return {
        "text": rule.text,
        "name": rule.name,
        "term": f"{rule.quantifier}({rule.name})" if rule.quantifier else rule.name,
        "bounds": bounds if len(bounds) == len(tests) else [],
        "members": rule.members,
        "missing": rule.missing,
        "rank": rule.rank is not None,
    }
