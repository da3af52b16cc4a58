"""What the page must know of a run once: its scores with their histograms, its labels, its rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.layout import Mask
from clipsieve.core.text import printable
from clipsieve.scorers import COLUMNS
from clipsieve.web.state import View

WORDS = 30
"""Values of a text score, such as labels, that are listed."""


def about(view: View) -> dict[str, Any]:
    """All of it, as plain values."""
    run, plan = view.run, view.tuning.plan
    words = [_labels(view, name) for name in view.tuning.scores if _is_text(view, name)]
    return {
        "key": view.key,
        "name": printable("/".join(part.strip("/") for part in run.path.resolve().parts[-2:]).lstrip("/")),
        "rows": view.rows,
        "images": int(view.past.is_image.sum()),
        "model": printable(run.recipe.model) if run.executed.get("encoder") else None,
        "layout": run.executed["layout"],
        "keep": view.own_rules,
        "dedup": plan.dedup.by.text if plan.dedup else None,
        "groups": None if view.groups is None else len(view.groups.ends),
        "write": run.recipe.write.format if run.recipe.write else None,
        "scores": [_score(view, name) for name in view.numeric],
        "words": [told for told in words if told is not None],
    }


def _score(view: View, name: str) -> dict[str, Any]:
    """A numeric score for its panel: ``rule`` says whether rules can name it."""
    drawn = view.histogram(name)
    pair = name in COLUMNS and COLUMNS[name].unit == "pair"
    told: dict[str, Any] = {"name": name, "rule": name in view.tuning.scores, "pair": pair}
    if drawn is None:
        return told
    skipped = view.past.is_image & _skipped(view, name)
    missing = view.past.is_image & np.isnan(view.values(name)) & ~skipped
    return {
        **told,
        "scale": drawn.scale,
        "edges": drawn.edges.tolist(),
        "heights": drawn.heights.tolist(),
        "percentiles": drawn.percentiles,
        "missing": int(missing.sum()),
        "skipped": int(skipped.sum()),
    }


def _skipped(view: View, name: str) -> Mask:
    """The rows of which a score, or that of one of its pairs, was not computed."""
    replay = view.tuning.replay
    if not pa.types.is_list(view.ledger[name].type):
        return ~replay.column(name).computed
    column, *ends = replay.pairs(name)
    skipped = np.zeros(view.rows, dtype=bool)
    for rows in ends:
        skipped[rows[~column.computed]] = True
    return skipped


def _is_text(view: View, name: str) -> bool:
    """Whether a score is a word, as a label is; a hash says something else of every image."""
    kind = view.tuning.schema.field(name).type
    return name in COLUMNS and not name.endswith("_hash") and bool(pa.types.is_string(kind))


def _labels(view: View, name: str) -> dict[str, Any] | None:
    """A text score with its most common values; None where no image has one."""
    column = pc.drop_null(view.ledger[name])
    if not len(column):
        return None
    counted = sorted(pc.value_counts(column).to_pylist(), key=lambda item: -item["counts"])
    return {"name": name, "words": [[printable(item["values"]), item["counts"]] for item in counted[:WORDS]]}
