"""What the page shows of single images: where one stands by some rules and why, and all that the ledger says of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from clipsieve.core.decide import BoundRule
from clipsieve.core.ledger import BASE_SCHEMA, image_names
from clipsieve.core.replay import BESIDE
from clipsieve.core.text import printable
from clipsieve.errors import UsageError
from clipsieve.web.queries import Standing, changed
from clipsieve.web.questions import Gallery, One, Page, Rules
from clipsieve.web.state import Decided, View

LONG = 4000
"""Characters of a text that are shown; a document's paragraph can be a page."""


GROUP = 24
"""Images of a group of near duplicates that are shown."""


def clean(text: str | None, length: int = LONG) -> str | None:
    """A text from the data as one line that steers nothing."""
    if text is None:
        return None
    cut = " ".join(text[: 2 * length].split())
    return printable(cut[:length] + ("…" if len(cut) > length else ""))


def gallery(view: View, asked: Gallery) -> dict[str, Any]:
    """A page of the gallery: how many images it has in all, and some of them."""
    rows = view.order(asked)
    found = view.decided(asked)
    score = asked.sort
    if asked.order == "near" and asked.near is not None:
        score = found.decision.rules[asked.near].rule.name
    page = rows[asked.offset : asked.offset + asked.limit]
    return {"total": len(rows), "score": score, "images": tiles(view, found, page.tolist(), score)}


def groups(view: View, asked: Page) -> dict[str, Any]:
    """Some groups of near duplicates, the one that stayed first in each."""
    if view.groups is None:
        raise UsageError("this run searched for no near duplicates: clipsieve dedup RUN makes one that does")
    found = view.decided(asked)
    score = next((name for name in ("max_similarity", "min_distance") if name in view.ledger.column_names), None)
    return {
        "total": len(view.groups.ends),
        "score": score,
        "groups": [
            {"size": len(rows), "images": tiles(view, found, rows[:GROUP].tolist(), score)}
            for rows in view.groups.page(asked.offset, asked.limit)
        ],
    }


def tiles(view: View, found: Decided, rows: list[int], score: str | None = None) -> list[dict[str, Any]]:
    """What stands on the tiles of some rows, with the value of ``score``."""
    ledger = view.ledger.take(pa.array(rows, pa.int64()))
    names = image_names(ledger).to_pylist()
    values = view.values(score)[rows] if score in view.numeric else np.full(len(rows), np.nan)
    moved = changed(found.standings[rows], view.past.kept[rows])
    made = []
    for place, row in enumerate(rows):
        standing = Standing(int(found.standings[row]))
        made.append(
            {
                "row": row,
                "name": clean(names[place], 300),
                "standing": standing.name.lower(),
                "why": clean(_why(view, found, row, ledger.slice(place, 1).to_pylist()[0]), 400),
                "was": ledger["verdict"][place].as_py() if moved[place] else None,
                "value": _number(values[place]),
            }
        )
    return made


def _why(view: View, found: Decided, row: int, told: Mapping[str, Any]) -> str | None:
    """Why the image stands where it does, in words; None for one that is kept."""
    standing = found.standings[row]
    if standing == Standing.KEPT:
        return None
    if standing == Standing.DUPLICATE:
        return f"{told['reason']}"
    if standing == Standing.FAILED:
        return f"{told['error']}"
    if standing == Standing.UNKNOWN:
        lacks = [b.rule.name for b in found.decision.rules if _is_lacking(told.get(b.rule.name, 0))]
        lacks += [*found.decision.lacking, "a score"]  # when it is another image of its sample that lacks one
        return f"needs {lacks[0]}, which the run did not compute"
    number = int(found.decision.out_by[row])
    if number == BESIDE:
        return told["reason"] or "goes with a failed image of its sample"
    bound = found.decision.rules[number]
    if told["rule"] == bound.rule.text and told["reason"]:
        return str(told["reason"])
    return _reason(bound, told)


def _is_lacking(value: Any) -> bool:
    return value is None or (isinstance(value, list) and None in value)


def _reason(bound: BoundRule, told: Mapping[str, Any]) -> str:
    rule = bound.rule
    value = told.get(rule.name)
    if rule.quantifier or isinstance(value, list):
        return f"its sample fails {rule.text}"
    if rule.rank is not None:
        shown = "missing" if value is None or value != value else f"{value:.5g}"
        return f"{rule.name} {shown} not {rule.text.removeprefix(rule.name).strip()}"
    one = np.array([value], dtype=object if isinstance(value, str) or value is None else np.float64)
    if bool(rule.passes(one)[0]):
        return f"goes with its sample: {rule.text}"
    return rule.reason(one, bound.why_missing)


def whole(view: View, asked: One) -> dict[str, Any]:
    """All that the ledger says of an image, and where it stands."""
    check_image(view, asked.row)
    found = view.decided(Rules(keep=asked.keep))
    (tile,) = tiles(view, found, [asked.row])
    (told,) = view.ledger.slice(asked.row, 1).to_pylist()
    base = set(BASE_SCHEMA.names)
    return {
        **tile,
        "then": {name: clean(told[name], 400) for name in ("verdict", "reason", "error") if told[name] is not None},
        "sample": clean(told["sample_id"], 300),
        "reference": clean(told["reference"], 1000),
        "scores": [[name, shown] for name, value in told.items() if name not in base and (shown := _shown(value))],
    }


class NoImageError(UsageError):
    """A row that the ledger does not have, or that is no image."""


def check_image(view: View, row: int) -> None:
    """Raises ``NoImageError``."""
    if not 0 <= row < view.rows or not view.past.is_image[row]:
        raise NoImageError(f"the ledger has no image in row {row}")


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _shown(value: Any) -> str:
    """A value of the ledger in few characters; of what was not computed none."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "missing" if math.isnan(value) else f"{value:.5g}" if abs(value) < 1e5 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return " ".join(_shown(one) for one in value.values())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return clean(", ".join(filter(None, map(_shown, value))), 400) or ""
    return clean(str(value), 400) or ""
