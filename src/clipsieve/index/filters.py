"""The rules of a search, checked against the columns of an index; each store turns the checked rules into its own form.

The text of a rule never gets any further than here: stores see names that are columns, and values that they bind.
"""

from __future__ import annotations

import math

import pyarrow as pa

from clipsieve.core.rules import Rule, check_name, parse
from clipsieve.errors import RuleError

HIDDEN = ("id", "sources", "digest", "thumbnail", "vector")
"""Columns that no rule reads."""


def checked(where: str | None, schema: pa.Schema) -> tuple[Rule, ...]:
    """The rules of ``where``, all of which must hold. Raises ``RuleError``.

    As in a recipe, a missing value passes no rule.
    """
    if where is None:
        return ()
    rules = parse(where)
    for rule in rules:
        check_name(rule.name, [name for name in schema.names if name not in HIDDEN])
        _check(rule, schema.field(rule.name).type)
    return rules


def _check(rule: Rule, type: pa.DataType) -> None:
    if rule.rank is not None:
        raise RuleError(f"rule {rule.text!r}: a share of the data set is for recipes; a search takes a threshold")
    if rule.quantifier is not None or pa.types.is_nested(type):
        raise RuleError(f"rule {rule.text!r}: a search reads columns of one value an image, without any() or all()")
    bounds = [test.bound for test in rule.tests]
    if pa.types.is_string(type):
        if any(not isinstance(bound, str) for bound in bounds):
            raise RuleError(f'rule {rule.text!r}: {rule.name} is a text; write {rule.name} in ("one", "other")')
    elif rule.members or any(isinstance(bound, str) for bound in bounds):
        raise RuleError(f"rule {rule.text!r}: {rule.name} is a number; compare it with one, as in {rule.name} >= 1")
    elif not all(math.isfinite(float(bound)) for bound in bounds):
        raise RuleError(f"rule {rule.text!r}: a bound is too large for a number")
