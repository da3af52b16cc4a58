"""The card of each score on a page: its histogram, its percentiles, and in words what the histogram leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from clipsieve.plan import Plan
from clipsieve.report.histograms import Histogram, histogram
from clipsieve.report.numbers import distribution
from clipsieve.report.page import plots
from clipsieve.report.thresholds import NEAR, rule_of, thresholds_of
from clipsieve.report.values import NOT_COMPUTED, Scores, Values
from clipsieve.report.words import number, plural, threshold_text
from clipsieve.scorers import COLUMNS

PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
NAMES: Mapping[int, str] = {0: "lowest", 50: "median", 100: "highest"}


@dataclass(frozen=True, kw_only=True)
class Card:
    """A score: its plot, SVG without anything of the data's but numbers, and its percentiles by their names.

    ``single`` tells of a value that the plot leaves out, ``drawn`` which of the kinds of bars and lines are there.
    """

    name: str
    values: str
    rules: list[str]
    single: str
    plot: Markup
    drawn: set[str]
    percentiles: list[tuple[str, str]]
    notes: list[str]


def cards_of(scores: Scores, plan: Plan) -> list[Card]:
    """A card for each numeric score, in the order of the ledger."""
    return [_card(scores, scores.of(name), plan) for name in scores.names]


def _card(scores: Scores, of: Values, plan: Plan) -> Card:
    steps = {step: rule for step in scores.steps if (rule := rule_of(plan, step)) is not None and rule.name == of.name}
    decided = scores.decided_of(of)
    marks = [at for step, rule in steps.items() for at in thresholds_of(rule, of, decided > scores.steps.index(step))]
    places = [place for place, step in enumerate(scores.steps) if step in steps]
    drawn = histogram(of, decided == len(scores.steps), np.isin(decided, places), marks)
    found = distribution(of, PERCENTILES)
    return Card(
        name=of.name,
        values=plural(found.values, "value"),
        rules=list(steps),
        single=_single(drawn),
        plot=Markup(plots.drawn(drawn)),
        drawn={name for name in plots.SERIES if getattr(drawn, name).any()} | {"mark" for _ in drawn.marks},
        percentiles=[(NAMES.get(at, f"{at}%"), number(value, 3)) for at, value in found.percentiles.items()],
        notes=list(_notes(drawn, found.missing, of)),
    )


def _single(drawn: Histogram) -> str:
    if drawn.single is None:
        return ""
    value, count, kept = drawn.single
    has = "has" if count == 1 else "have"
    rest = "; the plot shows the others" if len(drawn.edges) else ""
    return f"{plural(count, drawn.unit)} {has} exactly {number(value)}, {kept:,} of them kept{rest}."


def _notes(drawn: Histogram, missing: int, of: Values) -> Iterator[str]:
    what = of.unit
    if drawn.below or drawn.above:
        yield f"Left of the plot lie {plural(drawn.below, what)}, right of it {drawn.above:,}."
    if drawn.hidden and len(drawn.edges):
        yield f"Outside the plot: {', '.join(map(threshold_text, drawn.hidden))}."
    if missing:
        yield f"{plural(missing, what)} cannot be scored."
    if of.skipped and of.name in COLUMNS:
        yield (
            f"Not computed for {plural(of.skipped, what)} that an earlier rule had dropped, which the plot leaves out; "
            "a run with --score-all fills them."
        )
    elif of.skipped:
        why = (
            "not compared, since not all rules passed"
            if of.name in NEAR and of.why_skipped == NOT_COMPUTED.decode()
            else of.why_skipped
        )
        yield f"{plural(of.skipped, what)} without a value: {why}."
