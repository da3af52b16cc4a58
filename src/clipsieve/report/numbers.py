"""Numbers from a ledger: the funnel, the percentiles and histogram of each score, and the kinds of errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.ledger import Counts
from clipsieve.report.values import Scores, Values
from clipsieve.report.words import harsh, name_of
from clipsieve.scorers import COLUMNS

if TYPE_CHECKING:
    from clipsieve.plan import Plan

PERCENTILES = (1, 5, 50, 95, 99)
BINS = 42
CLOSE = 1e-5
"""Scores of a model agree to this between batch sizes and machines; closer to a threshold a verdict may differ."""

HALF = 0.5
"""A rule that drops more than this share of the images is warned about."""


@dataclass(frozen=True, kw_only=True)
class FunnelRow:
    """A step of the funnel: what it took out and what it left, in images."""

    step: str
    out: int
    left: int


def funnel(counts: Counts, rules: Sequence[str]) -> list[FunnelRow]:
    """From the images read to the images kept; ``rules`` in the order they decide."""
    left = counts.images.total
    rows = [FunnelRow(step="images read", out=0, left=left)]
    if counts.images.failed:
        left -= counts.images.failed
        rows.append(FunnelRow(step="failed", out=counts.images.failed, left=left))
    for rule in dict.fromkeys(rules):
        out = counts.dropped_by.get(rule, 0)
        left -= out
        rows.append(FunnelRow(step=rule, out=out, left=left))
    others = counts.images.dropped - sum(counts.dropped_by.values())
    if others:
        rows.append(FunnelRow(step="with a failed image of their sample", out=others, left=left - others))
    return rows


def warnings(counts: Counts) -> Iterator[str]:
    """Of each rule that dropped more than half of the images, that it did; the same of failures, with the commonest."""
    images = counts.images
    for rule, out in counts.dropped_by.items():
        if out > HALF * images.total:
            yield harsh(rule, out, images.total)
    if images.failed > HALF * images.total:
        error, count = next(iter(counts.errors.items()))
        yield f"{images.failed:,} of {images.total:,} images failed, {count:,} of them as: {error}"


def close_calls(ledger: pa.Table, plan: Plan) -> int:
    """How many model scores lie so close to a threshold that another batch size or machine may decide otherwise."""
    close = 0
    for name, bound in _model_bounds(plan):
        column = ledger[name]
        values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
        # Half a unit more, since 0.25001 - 0.25 is not quite 0.00001.
        close += int((np.abs(pc.drop_null(values).to_numpy() - bound) <= 1.5 * CLOSE).sum())
    return close


def _model_bounds(plan: Plan) -> Iterator[tuple[str, float]]:
    """The numbers against which scores of the model are held."""
    for bound in plan.rules:
        scorer = COLUMNS.get(bound.rule.name)  # none for a score of the whole data set, whose vectors are stored
        if scorer is not None and scorer.reads == "vectors":
            yield from ((bound.rule.name, test.bound) for test in bound.rule.tests if isinstance(test.bound, float))
    if plan.dedup and plan.dedup.by.semantic:
        yield "max_similarity", plan.dedup.by.at


@dataclass(frozen=True, kw_only=True, eq=False)
class Distribution:
    """How the computed values of one score lie.

    ``values`` were computed, ``missing`` cannot be scored (NaN), ``skipped`` are null, for the reason ``why_skipped``.
    ``edges`` ``(bins + 1,)`` and ``heights`` ``(bins,)`` make the histogram between the first and the last of the
    ``percentiles``.
    """

    name: str
    values: int
    missing: int
    skipped: int
    why_skipped: str
    percentiles: Mapping[int, float]
    edges: npt.NDArray[np.float64]
    heights: npt.NDArray[np.int64]


def distributions(ledger: pa.Table) -> list[Distribution]:
    """The distribution of each numeric score; a score of a sample counts once a sample, of pairs once a pair."""
    scores = Scores(ledger)
    return [distribution(scores.of(name)) for name in scores.names]


def distribution(of: Values, percentiles: Sequence[int] = PERCENTILES) -> Distribution:
    """The distribution of the values of one score."""
    finite = of.values[np.isfinite(of.values)]
    edges, heights, found = np.zeros(0), np.zeros(0, np.int64), []
    if len(finite):
        found = np.percentile(finite, percentiles).tolist()
        edges = np.linspace(found[0], found[-1], BINS + 1)
        inner = finite[(finite >= found[0]) & (finite <= found[-1])]
        heights = np.histogram(inner, edges)[0] if found[0] < found[-1] else np.zeros(BINS, np.int64)
    return Distribution(
        name=of.name,
        values=len(finite),
        missing=int(np.isnan(of.values).sum()),
        skipped=of.skipped,
        why_skipped=of.why_skipped,
        percentiles=dict(zip(percentiles, found, strict=False)),
        edges=edges,
        heights=heights,
    )


@dataclass(frozen=True, kw_only=True)
class ErrorKind:
    """Images with errors of one kind, the words before the colon or the line number; ``examples`` are some by name,
    with what their error says beyond its kind."""

    kind: str
    images: int
    examples: Sequence[tuple[str, str]]


def error_kinds(ledger: pa.Table, examples: int) -> list[ErrorKind]:
    """The kinds of errors, the most common first, each with its first ``examples``, of different errors if there are
    such."""
    errors = ledger["error"].combine_chunks().dictionary_encode()
    codes = errors.indices.fill_null(-1).to_numpy()
    kinds = [_kind(text) for text in errors.dictionary.to_pylist()]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    of_code = np.array([*(numbers[kind] for kind in kinds), -1])
    of_row = of_code[codes]
    found = []
    for kind, number in numbers.items():
        rows = np.flatnonzero(of_row == number)
        firsts = np.sort(np.unique(codes[rows], return_index=True)[1])[:examples]
        chosen = list(dict.fromkeys([*rows[firsts].tolist(), *rows[:examples].tolist()]))[:examples]
        pairs = [
            (name_of(row), row["error"].strip().removeprefix(kind).lstrip(": "))
            for row in ledger.take(pa.array(chosen)).to_pylist()
        ]
        found.append(ErrorKind(kind=kind, images=len(rows), examples=pairs))
    return sorted(found, key=lambda one: -one.images)


def _kind(error: str) -> str:
    """What an error says before its details; why an image was not fetched is no detail, and one of few reasons."""
    return error.strip() if error.startswith("not fetched:") else _KIND.split(error, maxsplit=1)[0].strip()


_KIND = re.compile(r":| at line (?=\d)")
