"""How a report, a terminal and a page of search results word numbers, names and comparisons: in one way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clipsieve.report.thresholds import Threshold

SIGNS = {">=": "≥", "<=": "≤", "==": "=", "!=": "≠"}
DROPPED_SIDE: Mapping[str, str] = {">=": "below", ">": "at or below", "<=": "above", "<": "at or above", "==": "beside",
                                   "!=": "at"}  # fmt: skip
PASSED_SIDE: Mapping[str, str] = {">=": "at or above", ">": "above", "<=": "at or below", "<": "below", "==": "at",
                                  "!=": "beside"}  # fmt: skip


def number(value: float, digits: int = 5) -> str:
    """A number with so many digits that tell something: ``0.25``, ``1,234.5``, ``123,457``; from a million ``3.4M``."""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if size <= abs(value) < math.inf:
            return f"{number(value / size, digits)}{unit}"
    return f"{value:,.0f}" if 10**digits - 0.5 <= abs(value) < math.inf else f"{value:,.{digits}g}"


def shown(value: Any) -> str:
    """What stands in a column of scores, in few characters."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(shown, value))
    if isinstance(value, Mapping):
        return " ".join(map(shown, value.values()))
    return "" if value is None else str(value)


def name_of(row: Mapping[str, Any]) -> str:
    """What to call the image of a ledger row: its reference, else that of its sample, else where it stands."""
    if row["reference"] is not None:
        return str(row["reference"])
    if row["sample_id"] is not None:
        return str(row["sample_id"]) if row["image"] is None else f"{row['sample_id']}#{row['image']}"
    return f"row {row['row']} of shard {row['shard']}"


def harsh(rule: str, out: int, total: int) -> str:
    """Of a rule that dropped more than half of ``total`` images that it did."""
    return f"{rule} dropped {'all' if out == total else 'more than half'} of the images"


def duplicates(about: Mapping[str, Any]) -> str:
    """How near duplicates were searched and what was found, in one line."""
    compared = f"{plural(about['compared'], 'image')} compared"
    if about["against"]:
        compared += f", also with the {about['against']['images']:,} of {about['against']['name']}"
    told = about["method"]
    if "approximate" in told:
        known = about["recall"] is not None
        told += f" (measured recall {about['recall']:.4f})" if known else " (recall unknown: no link in the sample)"
    return f"{told}: {compared}; {plural(about['removed'], 'near duplicate')}, in {plural(about['groups'], 'group')}"


def close_told(count: int, closeness: float) -> str:
    """Of so many model scores that a threshold is closer than ``closeness``, and what that means."""
    lie, those = ("lie", "those") if count != 1 else ("lies", "it")
    return (
        f"{plural(count, 'model score')} {lie} within {closeness:g} of a threshold: "
        f"another batch size or machine may decide {those} otherwise"
    )


def more_kinds(kinds: int, images: int) -> str:
    """Of kinds of errors that are not listed how many there are."""
    return f"and {plural(kinds, 'more kind')} of errors, {plural(images, 'image')}"


def threshold_text(at: Threshold) -> str:
    """A comparison without its score: ``≥ 100``."""
    return f"{SIGNS.get(at.op, at.op)} {at.bound:.10g}"


def plural(count: int, what: str) -> str:
    """A number of things: ``1 image``, ``2 images``."""
    return f"{count:,} {what}{'s' * (count != 1)}"
