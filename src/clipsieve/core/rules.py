"""From the text of a rule to a small checked tree, and from the tree and a score to yes or no with a reason.

::

    rule       = comparison { "and" comparison }
    comparison = term OP value | value OP term OP value
               | term "in" "(" text { "," text } ")"
               | name "in" ("top" | "bottom") NUMBER "%"
    term       = name | "any" "(" name ")" | "all" "(" name ")"

Nothing is ever evaluated as Python. Comparisons joined by ``and`` become rules of their own.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.core.layout import Mask
from clipsieve.errors import RuleError

Value: TypeAlias = float | str
Quantifier: TypeAlias = Literal["any", "all"]

OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {">=": ge, ">": gt, "<=": le, "<": lt, "==": eq, "!=": ne}
OPPOSITE = {">=": "<", ">": "<=", "<=": ">", "<": ">=", "==": "!=", "!=": "=="}
MIRRORED = {">=": "<=", ">": "<", "<=": ">=", "<": ">", "==": "==", "!=": "!="}

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    | (?P<string>"[^"]*"|'[^']*')
    | (?P<name>[A-Za-z_]\w*)
    | (?P<op>>=|<=|==|!=|>|<)
    | (?P<sign>[(),%])
    )""",
    re.VERBOSE,
)


_KINDS = {"number": "a number", "name": "the name of a score", "op": "a comparison such as >="}


class Test(NamedTuple):
    """One comparison of a value: ``value OP bound``."""

    op: str
    bound: Value


class Rank(NamedTuple):
    """A share of the whole data set: the ``top`` or ``bottom`` ``percent``."""

    side: Literal["top", "bottom"]
    percent: float


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A checked rule over one score.

    ``tests`` must all hold (none for a ``rank`` or ``members`` rule); ``members`` lists allowed texts;
    ``quantifier`` says whether any or all values of a sample must pass. ``drop`` is what goes when the rule fails
    (None: as the layout says) and ``missing`` the value that stands in for a missing one (None: missing fails).
    """

    text: str
    name: str
    tests: tuple[Test, ...] = ()
    members: tuple[str, ...] = ()
    rank: Rank | None = None
    quantifier: Quantifier | None = None
    drop: Literal["image", "sample"] | None = None
    missing: float | None = None

    def passes(self, values: npt.NDArray[Any]) -> Mask:
        """Which of ``values`` ``(n,)`` pass; a missing one (NaN, None) fails unless ``missing`` stands in for it."""
        values = self._filled(values)
        if self.members:
            return np.array([value in self.members for value in values], dtype=bool)
        held: Mask = ~is_missing(values)
        for test in self.tests:
            held[held] = OPERATORS[test.op](values[held], test.bound)
        return held

    def passes_groups(self, values: npt.NDArray[Any], groups: npt.NDArray[np.int64], count: int) -> Mask:
        """Whether any or all of the values of each group pass, ``(count,)``; a group without values fails."""
        passed = self.passes(values)
        good = np.bincount(groups[passed], minlength=count)
        size = np.bincount(groups, minlength=count)
        needed = np.minimum(size, 1) if self.quantifier == "any" else size
        good_enough: Mask = (size > 0) & (good >= needed)
        return good_enough

    def reason(self, values: npt.NDArray[Any], why_missing: str) -> str:
        """Why ``values`` (one, or all of a sample) fail, in words: ``blur 42.1 < 100``."""
        label = f"{self.quantifier}({self.name})" if self.quantifier else self.name
        filled = self._filled(values)
        failed = filled[~self.passes(values)]
        present = failed[~is_missing(failed)]
        if len(present) == 0:
            return f"{label} missing: {why_missing}"
        if self.members:
            return f"{label} {present[0]!s} not in ({', '.join(self.members)})"
        value, test = min(
            ((v, t) for v in present.tolist() for t in self.tests if not OPERATORS[t.op](v, t.bound)),
            key=lambda found: _distance(*found),
        )
        return f"{label} {shown(value, test)} {OPPOSITE[test.op]} {_text(test.bound)}"

    def _filled(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.missing is None or not is_missing(values).any():
            return values
        return np.where(is_missing(values), self.missing, values)


def is_missing(values: npt.NDArray[Any]) -> Mask:
    """Which of ``values`` are NaN or None."""
    if values.dtype == object:
        return np.array([value is None or value != value for value in values], dtype=bool)
    missing: Mask = np.isnan(values)
    return missing


def shown(value: Value, test: Test) -> str:
    """A value with few digits, but enough that the comparison it failed still reads as failed."""
    if isinstance(value, str):
        return repr(value)
    short = f"{value:.5g}"
    return short if not OPERATORS[test.op](float(short), test.bound) else repr(value)


def _distance(value: Value, test: Test) -> float:
    if isinstance(value, str) or isinstance(test.bound, str):
        return 0.0
    return abs(value - test.bound)


def _text(bound: Value) -> str:
    return f'"{bound}"' if isinstance(bound, str) else f"{bound:g}" if float(f"{bound:g}") == bound else repr(bound)


def rank_mask(values: npt.NDArray[np.float64], rank: Rank) -> Mask:
    """Which of ``values`` ``(n,)``, in input order, are in the top or bottom share.

    ``ceil(percent * m / 100)`` of the m values that are not NaN are; ties go to the earlier one.
    """
    present = int(np.count_nonzero(~np.isnan(values)))
    wanted = math.ceil(Fraction(str(rank.percent)) * present / 100)
    if not wanted:
        return np.zeros(len(values), dtype=bool)
    keys = -values if rank.side == "top" else values
    # Not sorted: of a billion values that would take minutes, and as much memory again. NaN comes last.
    edge = np.partition(keys, wanted - 1)[wanted - 1]
    chosen: Mask = keys < edge
    chosen[np.flatnonzero(keys == edge)[: wanted - np.count_nonzero(chosen)]] = True
    return chosen


def parse(
    text: str, *, drop: Literal["image", "sample"] | None = None, missing: float | None = None
) -> tuple[Rule, ...]:
    """The rules of one text, one for each comparison joined by ``and``. Raises ``RuleError``."""
    return tuple(_Parser(text, drop, missing).rules())


def check_name(name: str, known: Iterable[str]) -> None:
    """Raises ``RuleError`` with the nearest known name when ``name`` is not known."""
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {near[0]!r}? known" if near else "known"
        raise RuleError(f"unknown score {name!r}; {hint}: {', '.join(known)}")


class _Parser:
    def __init__(self, text: str, drop: Literal["image", "sample"] | None, missing: float | None) -> None:
        self.text, self.drop, self.missing = text, drop, missing
        self.tokens = self._split()
        self.place = 0

    def _split(self) -> Sequence[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        end = 0
        while self.text[end:].strip():
            match = _TOKEN.match(self.text, end)
            if match is None:
                raise self.error(f"cannot read {self.text[end:].strip()[:20]!r}")
            kind = match.lastgroup or ""
            tokens.append((kind, match.group(kind)))
            end = match.end()
        return tokens

    def error(self, what: str) -> RuleError:
        return RuleError(f"rule {self.text!r}: {what}. A rule reads NAME >= NUMBER, or LOW <= NAME <= HIGH")

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.place] if self.place < len(self.tokens) else ("end", "the end")

    def take(self, kind: str, value: str | None = None) -> str:
        found = self.peek()
        if found[0] != kind or (value is not None and found[1] != value):
            raise self.error(f"expected {value or _KINDS[kind]}, found {found[1]!r}")
        self.place += 1
        return found[1]

    def rules(self) -> Iterable[Rule]:
        yield self.comparison()
        while self.peek() == ("name", "and"):
            self.place += 1
            yield self.comparison()
        if self.peek()[0] != "end":
            raise self.error(f"did not expect {self.peek()[1]!r}")

    def comparison(self) -> Rule:
        start = self.place
        if self.peek()[0] in ("number", "string"):
            low = self.value()
            op = MIRRORED[self.take("op")]
            quantifier, name = self.term()
            return self.rule(start, name, quantifier, (Test(op, low), Test(self.take("op"), self.value())))
        quantifier, name = self.term()
        if self.peek() == ("name", "in"):
            self.place += 1
            return self.membership(start, name, quantifier)
        return self.rule(start, name, quantifier, (Test(self.take("op"), self.value()),))

    def membership(self, start: int, name: str, quantifier: Quantifier | None) -> Rule:
        if self.peek() == ("sign", "("):
            self.place += 1
            members = [self.word()]
            while self.peek() == ("sign", ","):
                self.place += 1
                members.append(self.word())
            self.take("sign", ")")
            return self.rule(start, name, quantifier, members=tuple(members))
        side: Literal["top", "bottom"]
        if self.peek() == ("name", "top"):
            side = "top"
        elif self.peek() == ("name", "bottom"):
            side = "bottom"
        else:
            raise self.error(f"after 'in' comes 'top N%', 'bottom N%' or a list in brackets, found {self.peek()[1]!r}")
        self.place += 1
        percent = float(self.take("number"))
        self.take("sign", "%")
        if quantifier or not 0 < percent <= 100:
            raise self.error("a share goes with a plain name and lies above 0 and up to 100 %")
        return self.rule(start, name, None, rank=Rank(side, percent))

    def rule(
        self,
        start: int,
        name: str,
        quantifier: Quantifier | None,
        tests: tuple[Test, ...] = (),
        *,
        members: tuple[str, ...] = (),
        rank: Rank | None = None,
    ) -> Rule:
        # The canonical text: single spaces, so that equal rules read equal.
        text = " ".join(value for _, value in self.tokens[start : self.place])
        for tight, loose in (("(", " ( "), ("(", "( "), (")", " )"), (",", " ,"), ("%", " %")):
            text = text.replace(loose, tight)
        text = text.replace(" in(", " in (")
        return Rule(
            text=text, name=name, tests=tests, members=members, rank=rank,
            quantifier=quantifier, drop=self.drop, missing=self.missing,
        )  # fmt: skip

    def term(self) -> tuple[Quantifier | None, str]:
        name = self.take("name")
        if name in ("any", "all") and self.peek() == ("sign", "("):
            self.place += 1
            inner = self.take("name")
            self.take("sign", ")")
            return ("any" if name == "any" else "all"), inner
        return None, name

    def value(self) -> Value:
        kind, text = self.peek()
        if kind == "number":
            self.place += 1
            return float(text)
        if kind == "string":
            self.place += 1
            return text[1:-1]
        raise self.error(f"expected a number, found {text!r}")

    def word(self) -> str:
        kind, text = self.peek()
        if kind not in ("name", "string", "number"):
            raise self.error(f"expected a label, found {text!r}")
        self.place += 1
        return text[1:-1] if kind == "string" else text
