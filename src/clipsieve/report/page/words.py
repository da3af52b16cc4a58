"""How a page words numbers and comparisons."""

from __future__ import annotations

from collections.abc import Mapping

from clipsieve.report.thresholds import Threshold

SIGNS = {">=": "≥", "<=": "≤", "==": "=", "!=": "≠"}
DROPPED_SIDE: Mapping[str, str] = {">=": "below", ">": "at or below", "<=": "above", "<": "at or above", "==": "beside",
                                   "!=": "at"}  # fmt: skip
PASSED_SIDE: Mapping[str, str] = {">=": "at or above", ">": "above", "<=": "at or below", "<": "below", "==": "at",
                                  "!=": "beside"}  # fmt: skip


def number(value: float) -> str:
    """A number in few characters: ``0.25``, ``640``, ``12k``, ``3.4M``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= 0.9995 * size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}".replace("-", "−")


def threshold_text(at: Threshold) -> str:
    """A comparison without its score: ``≥ 100``."""
    return f"{SIGNS.get(at.op, at.op)} {at.bound:.10g}"


def plural(count: int, what: str) -> str:
    """A number of things: ``1 image``, ``2 images``."""
    return f"{count:,} {what}{'s' * (count != 1)}"
