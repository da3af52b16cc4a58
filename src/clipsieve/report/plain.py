"""What a run says of itself as plain values for machines, beside its counts."""

from __future__ import annotations

import dataclasses
from typing import Any

from clipsieve.report.facts import Facts
from clipsieve.report.labels import by_label, shares
from clipsieve.report.numbers import close_calls, distribution
from clipsieve.report.values import Scores


def plain_values(facts: Facts) -> dict[str, Any]:
    """Scores, labels, stages, model and versions; a percentile is named by its number."""
    labelled = "label_probability" in facts.ledger.column_names
    return {
        "unfinished": facts.unfinished,
        "scores": _scores(Scores(facts.ledger)),
        "close_calls": close_calls(facts.ledger, facts.plan),
        "labels": [dataclasses.asdict(one) for one in shares(by_label(facts.ledger))] if labelled else None,
        "stages": dict(facts.stages),
        "operators": [dataclasses.asdict(one) for one in facts.operators],
        "timed_images": facts.summary.get("timed_images"),
        "model": facts.plan.recipe.model if facts.executed.get("encoder") else None,
        "encoder": facts.executed.get("encoder"),
        "versions": dict(facts.executed.get("versions") or {}),
        "finished": facts.finished,
    }


def _scores(scores: Scores) -> dict[str, Any]:
    found = {}
    for name in scores.names:
        of = scores.of(name)
        one = distribution(of)
        found[name] = {
            "unit": of.unit,
            "values": one.values,
            "nan": one.missing,
            "null": one.skipped,
            "percentiles": {str(percentile): value for percentile, value in one.percentiles.items()},
        }
    return found
