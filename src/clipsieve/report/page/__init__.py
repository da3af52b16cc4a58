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
from clipsieve.report.facts import Facts, duration
from clipsieve.report.labels import by_label, not_labelled, rest_told, shares, top
from clipsieve.report.page.cards import cards_of
from clipsieve.report.page.tiles import Small, Tiles, cut
from clipsieve.report.strips import Examples
from clipsieve.report.values import Scores
from clipsieve.report.words import DROPPED_SIDE, PASSED_SIDE, close_told, duplicates, more_kinds, plural

__all__ = ["Small", "page"]

POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"
"""What a browser may load for the page: its own style sheet, known by its hash, and images within it."""

EXAMPLES = 3
"""Images that are named for each kind of error."""

KINDS, RECIPE = 30, 20_000
"""So many kinds of errors and characters of the recipe are printed."""

TEXT_SHOWN = {"interleaved": "the text next to the image", "lists": "the first one"}
"""Which of the texts of a sample is its caption, in layouts where it can have more than one."""


def page(facts: Facts, scores: Scores, examples: Examples, pictures: Mapping[int, Small], without: str | None) -> str:
    """The page; ``pictures`` are by ledger row, and ``without`` says why they are missing."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plural": plural, "duration": duration, "cut": cut}
    here = resources.files(__name__)
    style, template = (here.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.html"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    kinds = numbers.error_kinds(facts.ledger, EXAMPLES)
    labelled = "label_probability" in facts.ledger.column_names
    listed, rest = top(shares(by_label(facts.ledger))) if labelled else ([], [])
    context: dict[str, Any] = {
        "policy": POLICY.format(digest),
        "style": Markup(style),
        "facts": facts,
        "counts": facts.counts,
        "funnel": numbers.funnel(facts.counts, facts.steps),
        "harsh": list(numbers.warnings(facts.counts)),
        "close": close_told(close, numbers.CLOSE) if (close := numbers.close_calls(facts.ledger, facts.plan)) else "",
        "cards": (cards := cards_of(scores, facts.plan)),
        "drawn": set().union(*(card.drawn for card in cards)),
        "examples": examples,
        "tiles": Tiles(scores, examples, pictures),
        "shards": facts.done,
        "shown": sum(one.jpeg is not None for one in pictures.values()),
        "without": without,
        "duplicates": duplicates(facts.duplicates) if facts.duplicates else None,
        "labels": listed,
        "label_notes": [*([rest_told(rest)] if rest else []), *(not_labelled(facts.ledger) if listed else [])],
        "kinds": kinds[:KINDS],
        "more_kinds": more_kinds(len(more), sum(one.images for one in more)) if (more := kinds[KINDS:]) else "",
        "recipe": facts.recipe[:RECIPE].splitlines(),
        "cut": max(len(facts.recipe) - RECIPE, 0),
        "dropped_side": DROPPED_SIDE,
        "passed_side": PASSED_SIDE,
        "text_shown": TEXT_SHOWN.get(facts.plan.layout),
    }
    return environment.from_string(template).render(context)


def _plain(value: Any) -> Any:
    """What Jinja is about to write, with all that is not printable spelt out; of the page's own markup nothing."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
