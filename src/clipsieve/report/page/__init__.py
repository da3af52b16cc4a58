"""A run as one HTML page: no script, no request to anywhere, nothing in it that is not escaped.

Jinja escapes whatever is put into the template, and before that ``_plain`` spells out what is no printable character.
The policy in the page lets a browser load nothing but its own style sheet and the images within it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from clipsieve.core.text import printable
from clipsieve.report import numbers
from clipsieve.report.examples import Examples
from clipsieve.report.facts import Facts, duration
from clipsieve.report.page.cards import cards_of
from clipsieve.report.page.tiles import Picture, Tiles, cut
from clipsieve.report.page.words import DROPPED_SIDE, PASSED_SIDE, number, plural
from clipsieve.report.terminal import duplicates_line
from clipsieve.report.values import Scores

__all__ = ["Picture", "page"]

POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"
"""What a browser may load for the page: its own style sheet, known by its hash, and images within it."""

EXAMPLES = 3
"""Images that are named for each kind of error."""

KINDS, RECIPE = 30, 20_000
"""So many kinds of errors and characters of the recipe are printed."""

LABELS = 20


def page(facts: Facts, scores: Scores, examples: Examples, pictures: Mapping[int, Picture], without: str | None) -> str:
    """The page; ``pictures`` are by ledger row, and ``without`` says why they are missing."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "plural": plural, "duration": duration, "cut": cut}
    here = resources.files(__name__)
    style, template = (here.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.html"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    context: dict[str, Any] = {
        "policy": POLICY.format(digest),
        "style": Markup(style),
        "facts": facts,
        "counts": facts.counts,
        "funnel": numbers.funnel(facts.counts, facts.steps),
        "harsh": list(numbers.harsh_rules(facts.counts)),
        "close": numbers.close_calls(facts.ledger, facts.plan),
        "closeness": numbers.CLOSE,
        "cards": cards_of(scores, facts.plan),
        "examples": examples,
        "tiles": Tiles(scores, examples, pictures),
        "shards": facts.done,
        "shown": sum(one.jpeg is not None for one in pictures.values()),
        "without": without,
        "duplicates": duplicates_line(facts.duplicates).removeprefix("dedup").strip() if facts.duplicates else None,
        "labels": _labels(scores),
        "most_labels": LABELS,
        "kinds": (kinds := numbers.error_kinds(facts.ledger, EXAMPLES))[:KINDS],
        "more_kinds": max(len(kinds) - KINDS, 0),
        "recipe": facts.recipe[:RECIPE].splitlines(),
        "cut": max(len(facts.recipe) - RECIPE, 0),
        "dropped_side": DROPPED_SIDE,
        "passed_side": PASSED_SIDE,
    }
    return environment.from_string(template).render(context)


def _labels(scores: Scores) -> list[tuple[str, int]]:
    """How many images have each label, the most common first."""
    if "label" not in scores.ledger.column_names:
        return []
    counted = scores.ledger["label"].drop_null().value_counts().to_pylist()
    return sorted(((item["values"], item["counts"]) for item in counted), key=lambda pair: -pair[1])


def _plain(value: Any) -> Any:
    """What Jinja is about to write, with all that is not printable spelt out; of the page's own markup nothing."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
