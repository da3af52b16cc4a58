"""A run in the terminal: the funnel, each score's percentiles with a small histogram, labels, errors, and how it was
made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from clipsieve.core.ledger import Counts
from clipsieve.core.text import printable
from clipsieve.engines.usage import Usage, advice
from clipsieve.report.facts import Facts, duration
from clipsieve.report.labels import label_report
from clipsieve.report.numbers import (
    CLOSE,
    PERCENTILES,
    Distribution,
    ErrorKind,
    close_calls,
    distributions,
    error_kinds,
    funnel,
    warnings,
)
from clipsieve.report.values import Scores
from clipsieve.report.words import close_told, duplicates, more_kinds, number

BLOCKS = " ▁▂▃▄▅▆▇█"
BAR = 16
ERRORS = 10
"""So many kinds of errors are listed."""


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
        table.add_row(
            Text(printable(row.step)), "" if row is rows[0] else f"{row.out:,}", f"{row.left:,}", f"{share} {bar}"
        )
    lines: list[RenderableType] = [table, Text(""), Text(totals(counts))]
    lines += [Text(f"warning: {printable(told)}", style="yellow") for told in warnings(counts)]
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
        cells = [number(value, 3) for value in one.percentiles.values()] or ["-"] * len(PERCENTILES)
        table.add_row(Text(printable(one.name)), f"{one.values:,}", *cells, sparkline(one))
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
    """The histogram in ``width`` characters, of which its bins are a multiple."""
    if not found.percentiles:
        return ""
    if found.edges[0] == found.edges[-1]:
        return "nearly all equal"
    heights = found.heights.reshape(width, -1).sum(axis=1)
    scaled = np.ceil(heights / max(heights.max(), 1) * (len(BLOCKS) - 1)).astype(int)
    return "".join(BLOCKS[height] for height in scaled)


def error_table(kinds: Sequence[ErrorKind]) -> RenderableType:
    """The kinds of errors, the most common first, each with an example."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("error", max_width=30)
    table.add_column("for example", overflow="fold")
    for one in kinds[:ERRORS]:
        example = ": ".join(filter(None, one.examples[0]))
        table.add_row(f"{one.images:,}", Text(printable(one.kind)), Text(printable(example)))
    rest = kinds[ERRORS:]
    return Group(table, Text(more_kinds(len(rest), sum(one.images for one in rest)))) if rest else table


def about_table(about: Sequence[tuple[str, str]]) -> RenderableType:
    """Names and what is to be said of them, which may be long."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, told in about:
        table.add_row(name, Text(printable(told)))
    return table


def stage_table(facts: Facts) -> RenderableType:
    """How long each stage took, with bars."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column(facts.timed, no_wrap=True, header_style="dim")
    most = max(seconds for _, seconds in facts.stages)
    for stage, seconds in facts.stages:
        table.add_row(Text(printable(stage)), duration(seconds), "█" * round(BAR * seconds / (most or 1)))
    return table


def operator_table(operators: Sequence[Usage]) -> RenderableType:
    """How busy the parts of a cluster were, and what to add to go faster."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operator", no_wrap=True)
    for name in ("shards", "images", "busy", "waited a shard", "workers", "used"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in operators:
        waited = "" if one.waited is None else duration(one.waited)
        table.add_row(
            one.operator, f"{one.shards:,}", f"{one.images:,}", duration(one.busy), waited,
            f"{one.workers:,}", f"{one.used:.0%}",
        )  # fmt: skip
    to_add = advice(operators)
    return Group(table, Text(to_add)) if to_add else table


def duplicates_line(about: Mapping[str, Any]) -> str:
    """How near duplicates were searched and what was found, in one line."""
    return f"dedup   {duplicates(about)}"


def show(console: Console, facts: Facts) -> None:
    """Prints a whole run."""
    if facts.unfinished:
        console.print(Text(facts.unfinished, style="yellow"))
    console.print(funnel_table(facts.counts, facts.steps))
    if facts.duplicates:
        console.print(Text(duplicates_line(facts.duplicates)))
    blocks: list[RenderableType] = []
    if Scores(facts.ledger).names:
        blocks.append(score_table(facts.ledger))
    if close := close_calls(facts.ledger, facts.plan):
        blocks.append(close_told(close, CLOSE))
    if "label" in facts.ledger.column_names:
        blocks.append(label_report(facts.ledger, (), console.width, few=0))
    if facts.counts.errors:
        blocks.append(error_table(error_kinds(facts.ledger, 1)))
    if facts.stages:
        blocks.append(stage_table(facts))
    if facts.operators:
        blocks.append(operator_table(facts.operators))
    for block in (*blocks, about_table(facts.about)):
        console.print()
        console.print(block)
