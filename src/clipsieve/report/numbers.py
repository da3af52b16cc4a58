"""Numbers from a ledger: the funnel, and the percentiles and histogram of each score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.ledger import BASE_SCHEMA, Counts
from clipsieve.scorers import COLUMNS

if TYPE_CHECKING:
    from clipsieve.plan import Plan

PERCENTILES = (1, 5, 50, 95, 99)
CLOSE = 1e-5
"""Scores of a model agree to this between batch sizes and machines; closer to a threshold a verdict may differ."""

NOT_COMPUTED = b"not computed, an earlier rule had dropped the image"
"""Why a score is null, where its field does not say otherwise in its metadata."""

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


def harsh_rules(counts: Counts) -> Iterator[str]:
    """The rules that dropped more than half of the images."""
    for rule, out in counts.dropped_by.items():
        if out > HALF * counts.images.total:
            yield rule


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
        if COLUMNS[bound.rule.name].reads == "vectors":
            yield from ((bound.rule.name, test.bound) for test in bound.rule.tests if isinstance(test.bound, float))
    if plan.dedup and plan.dedup.by.semantic:
        yield "max_similarity", plan.dedup.by.at


@dataclass(frozen=True, kw_only=True, eq=False)
class Distribution:
    """How the computed values of one score lie.

    ``values`` were computed, ``missing`` cannot be scored (NaN), ``skipped`` are null, for the reason ``why_skipped``.
    ``edges`` ``(bins + 1,)`` and ``heights`` ``(bins,)`` make the histogram.
    """

    name: str
    values: int
    missing: int
    skipped: int
    why_skipped: str
    percentiles: Mapping[int, float]
    edges: npt.NDArray[np.float64]
    heights: npt.NDArray[np.int64]


def distributions(ledger: pa.Table, bins: int = 40) -> list[Distribution]:
    """The distribution of each numeric score; a score of a sample counts once a sample, of pairs once a pair."""
    found = []
    samples = None
    for field in list(ledger.schema)[len(BASE_SCHEMA) :]:
        name = field.name
        column = ledger[name]
        if (field.metadata or {}).get(b"unit") == b"sample":
            samples = _first_rows(ledger) if samples is None else samples
            column = column.take(samples)
        if pa.types.is_list(column.type):
            column = pc.list_flatten(column)
        if not pa.types.is_floating(column.type):
            continue
        values = pc.drop_null(column).to_numpy()
        finite = values[np.isfinite(values)]
        heights, edges = np.histogram(finite, bins=bins) if len(finite) else (np.zeros(0, np.int64), np.zeros(0))
        found.append(
            Distribution(
                name=name,
                values=len(finite),
                missing=int(np.isnan(values).sum()),
                skipped=_nulls(ledger, field.name, column),
                why_skipped=(field.metadata or {}).get(b"null", NOT_COMPUTED).decode(),
                percentiles=dict(zip(PERCENTILES, np.percentile(finite, PERCENTILES).tolist(), strict=True))
                if len(finite)
                else {},
                edges=edges,
                heights=heights,
            )
        )
    return found


def _nulls(ledger: pa.Table, name: str, column: pa.ChunkedArray) -> int:
    """Nulls among what has a value of that kind: an image has, a sample without images has not."""
    of_images = (ledger.schema.field(name).metadata or {}).get(b"unit") == b"image"
    bare = ledger["image"].null_count if of_images else 0
    return int(column.null_count - bare)


def _first_rows(ledger: pa.Table) -> pa.Array:
    keys = ledger["shard"].to_numpy().astype(np.int64) << 32 | ledger["sample"].to_numpy()
    return pa.array(np.sort(np.unique(keys, return_index=True)[1]))
