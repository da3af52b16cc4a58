"""A run in the terminal: the funnel, then each score's percentiles with a small histogram, then the errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from clipsieve.core.ledger import BASE_SCHEMA, Counts
from clipsieve.report.numbers import CLOSE, PERCENTILES, Distribution, close_calls, distributions, funnel, harsh_rules

if TYPE_CHECKING:
    from clipsieve.plan import Plan

BLOCKS = " ▁▂▃▄▅▆▇█"
BAR = 24
ERRORS = 10
"""How many kinds of errors are listed."""


def funnel_table(counts: Counts, rules: Sequence[str]) -> RenderableType:
    """The funnel in images, with the samples and what to look at below."""
    rows = funnel(counts, rules)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "out", "left", ""):
        table.add_column(title, justify="right" if title else "left", no_wrap=bool(title))
    total = max(counts.images.total, 1)
    for row in rows:
        bar = "█" * round(BAR * row.left / total)
        share = f"{100 * row.left / total:5.1f}%"
        table.add_row(Text(row.step), f"{row.out:,}" if row.out else "", f"{row.left:,}", f"{share} {bar}")
    lines: list[RenderableType] = [table, Text(""), Text(totals(counts))]
    lines += [
        Text(f"warning: {rule} dropped more than half of the images", style="yellow") for rule in harsh_rules(counts)
    ]
    return Group(*lines)


def totals(counts: Counts) -> str:
    """Images and samples by verdict in one line each; the parts add up to the whole."""

    def line(name: str, tally: object) -> str:
        kept, dropped, failed, total = (getattr(tally, key) for key in ("kept", "dropped", "failed", "total"))
        return f"{name:<8}{total:>9,} = {kept:,} kept + {dropped:,} dropped + {failed:,} failed"

    return f"{line('images', counts.images)}\n{line('samples', counts.samples)}"


def score_table(ledger: pa.Table) -> RenderableType:
    """Percentiles and a histogram for each score, and below what has no value and why."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("score", no_wrap=True)
    table.add_column("values", justify="right", no_wrap=True)
    for percentile in PERCENTILES:
        title = "median" if percentile == 50 else f"{percentile}%"
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("1% to 99%", no_wrap=True)
    found = distributions(ledger)
    for one in found:
        cells = [_number(value) for value in one.percentiles.values()] or ["-"] * len(PERCENTILES)
        table.add_row(one.name, f"{one.values:,}", *cells, sparkline(one))
    lines: list[RenderableType] = [table]
    gaps_by_title = {"cannot be scored (NaN)": {one.name: one.missing for one in found}}
    for one in found:
        gaps_by_title.setdefault(one.why_skipped, {})[one.name] = one.skipped
    for title, gaps in gaps_by_title.items():
        named = ", ".join(f"{name} {number:,}" for name, number in gaps.items() if number)
        if named:
            lines.append(Text(f"{title}: {named}", style="dim"))
    return Group(*lines)


def sparkline(found: Distribution, width: int = 14) -> str:
    """The histogram between the outer percentiles in ``width`` characters."""
    if not found.percentiles:
        return ""
    low, high = found.percentiles[PERCENTILES[0]], found.percentiles[PERCENTILES[-1]]
    if low == high:
        return "all equal"
    centres = (found.edges[:-1] + found.edges[1:]) / 2
    heights, _ = np.histogram(centres, bins=width, range=(low, high), weights=found.heights)
    scaled = np.ceil(heights / max(heights.max(), 1) * (len(BLOCKS) - 1)).astype(int)
    return "".join(BLOCKS[height] for height in scaled)


def error_table(counts: Counts) -> RenderableType:
    """The most common errors."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("images", justify="right")
    table.add_column("error")
    for error, images in list(counts.errors.items())[:ERRORS]:
        table.add_row(f"{images:,}", Text(error))
    return table


def duplicates_line(about: Mapping[str, Any]) -> str:
    """How near duplicates were searched and what was found, in one line."""
    compared = f"{about['compared']:,} images compared"
    if about["against"]:
        compared += f", also with the {about['against']['images']:,} of {about['against']['name']}"
    told = about["method"]
    if "approximate" in told:
        known = about["recall"] is not None
        told += f" (measured recall {about['recall']:.4f})" if known else " (recall unknown: no link in the sample)"
    groups = f"{about['groups']:,} group" + "s" * (about["groups"] != 1)
    return f"dedup   {told}: {compared}; {about['removed']:,} near duplicates, in {groups}"


def show(
    console: Console,
    counts: Counts,
    plan: Plan,
    steps: Sequence[str],
    ledger: pa.Table,
    duplicates: Mapping[str, Any] | None,
) -> None:
    """Prints a whole run; ``steps`` are those of the funnel."""
    console.print(funnel_table(counts, steps))
    if duplicates:
        console.print(Text(duplicates_line(duplicates)))
    if ledger.num_columns > len(BASE_SCHEMA):
        console.print()
        console.print(score_table(ledger))
    if close := close_calls(ledger, plan):
        console.print(
            f"{close:,} model scores lie within {CLOSE:g} of a threshold: another batch size or machine may decide "
            "those otherwise"
        )
    if counts.errors:
        console.print()
        console.print(error_table(counts))


def _number(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
