"""A comparison of rules in the terminal: suggestions, the funnel before and after, and what each rule does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from clipsieve.report.suggest import Suggestion
from clipsieve.report.tuning import Comparison, Tally
from clipsieve.scorers import DATASET_COLUMNS


def told(comparison: Comparison, suggested: Sequence[Suggestion], dedup: str | None) -> Iterator[RenderableType]:
    """All that is printed; ``dedup`` is the text of the run's search for near duplicates."""
    if suggested:
        yield _suggestions(suggested)
        yield Text("Each by itself; what they keep together is below.\n", style="dim")
    yield _funnel(comparison)
    yield Text("")
    if comparison.steps:
        yield _effects(comparison)
        yield Text("alone: without any other rule; last: after all others\n", style="dim")
    for name, (before, now) in {"images": comparison.images, "samples": comparison.samples}.items():
        change = now.kept - before.kept
        yield Text(f"{name:<8}{_line(now)}; kept {before.kept:,} before ({change:+,})")
    turned = f"{comparison.to_kept:,} images from dropped to kept, {comparison.to_dropped:,} from kept to dropped"
    yield Text(f"turned  {turned}")
    if comparison.lacking:
        yield Text(unknown(comparison.lacking), style="yellow")
    if dedup is not None:
        yield Text(f"{dedup}: `clipsieve apply` searches for near duplicates among the images kept here")


def unknown(lacking: Mapping[str, int]) -> str:
    """Of how many images nobody knows, for want of which scores, and what to do about it."""
    names = ", ".join(f"{name} of {number:,}" for name, number in lacking.items())
    total = sum(lacking.values())
    told = f"{total:,} image{'s are' if total != 1 else ' is'} not known: the run did not compute {names}. "
    if set(lacking) & set(DATASET_COLUMNS):
        return told + "Such scores are only of what was embedded: run with --score-all --vectors, then add them"
    return told + "`clipsieve apply --fill` computes those; a run with --score-all leaves none out"


def _line(tally: Tally) -> str:
    parts = f"{tally.kept:,} kept + {tally.dropped:,} dropped + {tally.failed:,} failed"
    total = tally.kept + tally.dropped + tally.failed + tally.unknown
    return f"{total:,} = {parts}" + (f" + {tally.unknown:,} not known" if tally.unknown else "")


def _suggestions(suggested: Sequence[Suggestion]) -> Table:
    table = _table("suggested", "pass", "of scored", "share", "not scored")
    for one in suggested:
        share = f"{100 * one.passing / one.scored:.1f}%"
        table.add_row(Text(one.rule), f"{one.passing:,}", f"{one.scored:,}", share, _number(one.unscored))
    return table


def _funnel(comparison: Comparison) -> Table:
    table = _table("", "run: out", "left", "now: out", "left")
    before, now = comparison.images
    reach = [tally.kept + tally.dropped + tally.failed + tally.unknown for tally in (before, now)]
    table.add_row("images read", "", f"{reach[0]:,}", "", f"{reach[1]:,}")
    if before.failed or now.failed:
        left = [f"{total - tally.failed:,}" for total, tally in zip(reach, (before, now), strict=True)]
        table.add_row("failed", f"{before.failed:,}", left[0], f"{now.failed:,}", left[1])
    for step in comparison.steps:
        cells = [_number(count) for pair in zip(step.dropped, step.left, strict=True) for count in pair]
        table.add_row(Text(step.rule), *cells)
    if now.unknown:
        table.add_row("not known", "", "", f"{now.unknown:,}", f"{now.kept:,}")
    return table


def _effects(comparison: Comparison) -> Table:
    table = _table("drops", "alone", "last", "kept to dropped", "dropped to kept")
    for step in comparison.steps:
        found = [_range(step.alone), _range(step.last), _number(step.to_dropped), _number(step.to_kept)]
        table.add_row(Text(step.rule), *found)
    return table


def _table(first: str, *titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _range(counts: tuple[int, int] | None) -> str:
    """At least, and at most where that is more."""
    if counts is None:
        return ""
    low, high = counts
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
