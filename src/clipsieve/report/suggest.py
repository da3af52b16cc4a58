"""Thresholds by share: for ``30%`` the one that this share of the scored passes, in the direction of the rule."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.core.rules import Rule
from clipsieve.errors import RuleError
from clipsieve.scorers.facts import FileBytes, Size, Words

Wanted: TypeAlias = Literal["high", "low", "middle"]

WANTED: dict[str, Wanted] = {
    "qr_code": "low", "nearest_similarity": "low", "image_text_ratio": "middle", "aspect_ratio": "middle",
}  # fmt: skip
"""Which values of a score are wanted where no rule says it; of all others the high ones."""

FACTS = frozenset(column for scorer in (FileBytes, Size, Words) for column in scorer.columns)
"""What an image is beside its scores: a share of it is taken, and images along it are shown, only where it is named."""

NEAR = 0.005
"""A rounded threshold may let this share of the scored more or fewer pass than the exact one."""

_ASKED = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)\s*=\s*)?(?P<percent>\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A rule on ``name`` that ``passing`` of the ``scored`` values pass; ``unscored`` were left out by early exit."""

    name: str
    rule: str
    scored: int
    passing: int
    unscored: int


def asked_shares(asked: str | Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """The share in percent for each score: ``30%`` is for all of ``names``, ``clip_score=30%`` for one.

    Raises ``RuleError``.
    """
    shares: dict[str, float] = {}
    for text in [asked] if isinstance(asked, str) else asked:
        match = _ASKED.fullmatch(text.strip())
        if match is None or not 0 < float(match["percent"]) < 100:
            raise RuleError(f"--suggest {text!r}: give a share between 0 and 100%, as in 30% or clip_score=30%")
        for name in [match["name"]] if match["name"] else names:
            shares[name] = float(match["percent"])
    return shares


def wanted(name: str, rule: Rule | None) -> Wanted:
    """Which values of a score are wanted: as its rule has it, else as is usual."""
    if rule is None or not rule.tests:
        return WANTED.get(name, "high")
    sides = {test.op[0] for test in rule.tests}
    return "middle" if sides == {"<", ">"} else "high" if ">" in sides else "low"


def suggest(
    name: str,
    values: npt.NDArray[np.float64],
    computed: npt.NDArray[np.bool_],
    percent: float,
    like: Rule | None = None,
) -> Suggestion:
    """The threshold on ``values`` ``(units,)`` that ``percent`` of those that are ``computed`` and no NaN pass.

    It points the way of the rule ``like``, and is on any or all values where that is. It has few digits, as many as
    bring it within half a percent of the share. Raises ``RuleError`` without any value.
    """
    of = wanted(name, like)
    scored = np.sort(values[computed & ~np.isnan(values)])
    if not len(scored):
        raise RuleError(
            f"--suggest: the run has no {name} to judge by; name a score that it has, such as --suggest blur=30%"
        )
    count = math.ceil(percent * len(scored) / 100)
    first = {"high": len(scored) - count, "low": 0, "middle": (len(scored) - count) // 2}[of]
    low, high = scored[first], scored[first + count - 1]
    for digits in range(3, 18):
        bounds = [
            None if side == of else np.format_float_positional(bound, digits, unique=False, fractional=False, trim="-")
            for side, bound in (("low", low), ("high", high))
        ]
        passing = _between(scored, *bounds)
        if abs(passing - _between(scored, repr(float(low)), repr(float(high)))) <= NEAR * len(scored):
            break
    term = f"{like.quantifier}({name})" if like is not None and like.quantifier else name
    rule = f"{term} >= {bounds[0]}" if of == "high" else f"{term} <= {bounds[1]}"
    if of == "middle":
        rule = f"{bounds[0]} <= {term} <= {bounds[1]}"
    return Suggestion(name=name, rule=rule, scored=len(scored), passing=passing, unscored=int((~computed).sum()))


def _between(ordered: npt.NDArray[np.float64], low: str | None, high: str | None) -> int:
    """How many values lie from ``low`` to ``high``, both included."""
    start = 0 if low is None else np.searchsorted(ordered, float(low), side="left")
    stop = len(ordered) if high is None else np.searchsorted(ordered, float(high), side="right")
    return max(int(stop - start), 0)
