"""The thresholds of a run's rules: what each step of the funnel holds a score against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipsieve.core.rules import Rule, Test
from clipsieve.plan import Plan
from clipsieve.report.values import Values


class Threshold(NamedTuple):
    """A comparison of a score with a number: ``score OP bound`` passes."""

    op: str
    bound: float


NEAR = ("max_similarity", "min_distance")
"""The columns that near duplicates are judged by."""


def rule_of(plan: Plan, step: str) -> Rule | None:
    """The rule with the text ``step``; for near duplicates one that says the same; None for a filter in Python."""
    for bound in (*plan.rules, *plan.ranks):
        if bound.rule.text == step:
            return bound.rule
    if plan.dedup is None or plan.dedup.by.text != step:
        return None
    by = plan.dedup.by
    if by.semantic:
        return Rule(text=step, name="max_similarity", tests=(Test("<", by.at),))
    return Rule(text=step, name="min_distance", tests=(Test(">", by.at),) if by.method == "perceptual" else ())


def thresholds_of(rule: Rule, of: Values, passed: npt.NDArray[np.bool_]) -> Iterator[Threshold]:
    """The comparisons of a rule with numbers; of a share of the whole data set the one that it came to.

    ``passed`` ``(n,)`` marks the values that the rule let pass.
    """
    for test in rule.tests:
        if isinstance(test.bound, float):
            yield Threshold(test.op, test.bound)
    values = of.values[passed]
    values = values[np.isfinite(values)]
    if rule.rank is not None and len(values):
        top = rule.rank.side == "top"
        yield Threshold(">=", float(values.min())) if top else Threshold("<=", float(values.max()))
