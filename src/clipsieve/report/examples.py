"""Which images a report shows, from the ledger alone: at each threshold the nearest on both sides, of what each rule
dropped some at random, groups of near duplicates, and images of each label; of a run without rules, images from the
lowest to the highest of each score.

What is nearest to a threshold is exactly that, wherever it lies. What is chosen at random comes from few shards where
these hold enough, since an image can cost the reading of its whole shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.ledger import image_names
from clipsieve.core.rules import OPERATORS, Rule
from clipsieve.plan import Plan
from clipsieve.report.labels import by_label, top
from clipsieve.report.sheet import choose
from clipsieve.report.strips import AtThreshold, Examples, Group, OfLabel, OfRule, OfScore, Tile
from clipsieve.report.suggest import FACTS
from clipsieve.report.thresholds import NEAR, Threshold, rule_of, thresholds_of
from clipsieve.report.values import Scores, Values

SHARDS = 16
"""Random choices come from so many shards."""

PICTURES = 400
"""Places for pictures on a page at most; where many rules need more, the last stay empty."""

AT_THRESHOLDS, AT_RANDOM, BY_LABEL = 180, 120, 48
"""How many of them are for thresholds, for what rules dropped, and for labels; the rest is for near duplicates."""

NEAREST, DROPPED, GROUP = 6, 12, 6
"""So many on a side of a threshold, of a rule's dropped and of a group, where there is room for as many."""

OF_SAMPLE = 3
"""So many images of a sample are shown."""

RULES = 60
"""Of so many rules images are shown."""

OF_PLACE = 2
"""So many images are shown at a place along a score."""

PLACES = (1, 25, 50, 75, 99)
"""The percentiles of a score that images are shown of, where no rule holds it against anything."""

LARGEST, RANDOM_GROUPS = 3, 5
PICTURED = 12
"""Images are shown of so many labels, those of most images."""

MISSING = r"^(sample dropped: )?\S+ missing: "
"""How the reason of a rule begins that had no value to go by."""


def examples(scores: Scores, plan: Plan) -> Examples:
    """What a report shows of a ledger; ``scores.steps`` are the rules in the order they decide. Equal ledgers give
    equal examples."""
    sampler = _Sampler(scores.ledger)
    is_image = pc.is_valid(scores.ledger["image"]).to_numpy()
    out = np.bincount(scores.decided[is_image] + 1, minlength=len(scores.steps) + 2)[1:].tolist()
    rules = {place: rule_of(plan, step) for place, step in enumerate(scores.steps)}
    # A filter in Python that dropped nothing has nothing to show, a rule has its thresholds.
    shown = [place for place, rule in rules.items() if out[place] or rule is not None][:RULES]
    wide = sum(
        _width(scores, rule.name) * max(len(rule.tests), 1) for place in shown if (rule := rules[place]) is not None
    )
    each = max(1, min(NEAREST, AT_THRESHOLDS // max(2 * wide, 1)))
    share = max(1, min(DROPPED, AT_RANDOM // max(len(shown), 1)))
    found = []
    for place in shown:
        went = np.flatnonzero((scores.decided == place) & is_image)
        thresholds = list(_thresholds(scores, place, rules[place], each))
        seen = {image for at in thresholds for tile in at.dropped for image in tile.images}
        rows, shards = ([], None) if seen.issuperset(went.tolist()) else sampler.choose(went, share)
        found.append(_of_rule(scores, place, rules[place], went, thresholds, rows, shards))
    return Examples(
        rules=found,
        scores=[] if scores.steps else list(_along(scores)),
        groups=_groups(scores, plan, sampler),
        labels=_labels(scores.ledger),
    )


class _Sampler:
    """Chooses rows at random, the same ones each time."""

    def __init__(self, ledger: pa.Table) -> None:
        shards = ledger["shard"].to_numpy()
        every = np.unique(shards)
        self.few = len(every) > SHARDS
        pool = np.random.default_rng(0).permutation(every)[:SHARDS]
        self._in_pool = np.isin(shards, pool)

    def choose(self, rows: npt.NDArray[np.int64], count: int) -> tuple[list[int], int | None]:
        """``count`` of ``rows`` in their order, and from how many shards, None for all."""
        near = rows[self._in_pool[rows]]
        few = self.few and len(near) >= count
        chosen = np.random.default_rng(len(rows)).permutation(near if few else rows)[:count]
        return np.sort(chosen).tolist(), SHARDS if few else None


def _width(scores: Scores, name: str) -> int:
    """How many images a tile of a score shows."""
    if name in NEAR:
        return 2
    unit = (scores.ledger.schema.field(name).metadata or {}).get(b"unit") if name in scores.names else None
    return {b"pair": 2, b"sample": OF_SAMPLE}.get(unit or b"", 1)


def _of_rule(
    scores: Scores,
    place: int,
    rule: Rule | None,
    went: npt.NDArray[np.int64],
    thresholds: Sequence[AtThreshold],
    rows: Sequence[int],
    shards: int | None,
) -> OfRule:
    """A rule that dropped the images of the ledger rows ``went``, of which ``rows`` were chosen."""
    values: dict[int, float] = {}
    keys = rows
    if rule is not None and rule.name in scores.names:
        of = scores.of(rule.name)
        keys = rows if of.unit == "image" else scores.first_rows_of(rows)
        wanted = np.isin(of.rows, keys) & (of.others is None)
        values = dict(zip(of.rows[wanted].tolist(), of.values[wanted].tolist(), strict=True))
    reasons = scores.ledger["reason"].take(pa.array(went))
    missing = 0 if rule is None else pc.sum(pc.match_substring_regex(reasons, MISSING)).as_py()
    return OfRule(
        rule=scores.steps[place],
        score=None if rule is None else rule.name,
        images=len(went),
        missing=missing or 0,
        thresholds=thresholds,
        dropped=[Tile(row=row, images=(row,), value=values.get(key)) for row, key in zip(rows, keys, strict=True)],
        shards=shards,
    )


def _thresholds(scores: Scores, place: int, rule: Rule | None, each: int) -> Iterator[AtThreshold]:
    """What lies at the thresholds of a rule, ``each`` at most on a side."""
    if rule is not None and rule.name in scores.names:
        of = scores.of(rule.name)
        decided = scores.decided_of(of)
        went, passed = decided == place, decided > place
        for at in thresholds_of(rule, of, passed):
            yield _threshold(scores, of, at, went, passed, each)


def _along(scores: Scores) -> Iterator[OfScore]:
    """Images along each score, as many at each place as there is room for."""
    names = [name for name in scores.names if name not in FACTS]
    wide = sum(_width(scores, name) for name in names) * len(PLACES)
    each = max(1, min(OF_PLACE, AT_THRESHOLDS // max(wide, 1)))
    for name in names:
        of = scores.of(name)
        real = np.flatnonzero(np.isfinite(of.values))
        order = real[np.argsort(of.values[real], kind="stable")]
        last = max(len(order) - each, 0)
        starts = [round(last * place / 100) for place in PLACES]
        places = np.unique([start + i for start in starts for i in range(each)])
        if len(order):
            tiles = _tiles(scores, of, order[places[places < len(order)]])
            yield OfScore(score=name, unit=of.unit, values=len(order), tiles=tiles)


def _threshold(
    scores: Scores, of: Values, at: Threshold, went: npt.NDArray[np.bool_], passed: npt.NDArray[np.bool_], each: int
) -> AtThreshold:
    holds = OPERATORS[at.op](of.values, at.bound)  # NaN holds for != alone, and is never near
    real = np.isfinite(of.values)
    sides = []
    for side in (went & ~holds & real, passed & holds & real):
        places = np.flatnonzero(side)
        nearest = places[np.argsort(np.abs(of.values[places] - at.bound), kind="stable")[:each]]
        sides.append((_tiles(scores, of, nearest), len(places)))
    (dropped, dropped_of), (kept, kept_of) = sides
    return AtThreshold(at=at, unit=of.unit, dropped=dropped, dropped_of=dropped_of, passed=kept, passed_of=kept_of)


def _tiles(scores: Scores, of: Values, places: npt.NDArray[np.int64]) -> list[Tile]:
    rows, values = of.rows[places].tolist(), of.values[places].tolist()
    if of.name in NEAR:
        images = _with_nearest(scores.ledger, rows)
    elif of.others is not None:
        images = list(zip(rows, of.others[places].tolist(), strict=True))
    elif of.unit == "sample":
        images = [tuple(scores.images_of(row)) for row in rows]
    else:
        images = [(row,) for row in rows]
    return [
        Tile(
            row=row,
            images=shown[:OF_SAMPLE],
            value=value,
            sample=of.unit != "image",
            more=max(len(shown) - OF_SAMPLE, 0),
        )
        for row, value, shown in zip(rows, values, images, strict=True)
    ]


def _with_nearest(ledger: pa.Table, rows: Sequence[int]) -> list[tuple[int, ...]]:
    """Each row with that of its nearest image, where its name is that of one image of this run alone."""
    names = image_names(ledger)
    pairs = []
    for row, name in zip(rows, ledger["nearest"].take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
        found = [] if name is None else pc.indices_nonzero(pc.equal(names, name)).to_pylist()
        pairs.append((row, *found) if len(found) == 1 else (row,))
    return pairs


def _groups(scores: Scores, plan: Plan, sampler: _Sampler) -> list[Group]:
    """The largest groups of near duplicates, and some others at random."""
    if plan.dedup is None or "duplicate_group" not in scores.ledger.column_names:
        return []
    column = scores.ledger["duplicate_group"].combine_chunks()
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    numbers = column.drop_null().to_numpy()
    groups, sizes = np.unique(numbers, return_counts=True)
    largest = np.argsort(-sizes, kind="stable")
    # A group's number is the ledger row of one of its images.
    others, _ = sampler.choose(np.sort(groups[largest[LARGEST:]]), RANDOM_GROUPS)
    found = []
    for group in [*groups[largest[:LARGEST]].tolist(), *others]:
        members = rows[numbers == group]
        went = scores.decided[members] < len(scores.steps)
        members = members[np.lexsort((members, went))]
        found.append(
            Group(images=len(members), tiles=[Tile(row=row, images=(row,)) for row in members[:GROUP].tolist()])
        )
    return found


def _labels(ledger: pa.Table) -> list[OfLabel]:
    """Some images of the most common labels."""
    if "label" not in ledger.column_names or "label_probability" not in ledger.column_names:
        return []
    return [
        OfLabel(
            label=block.label,
            images=block.images,
            tiles=[
                Tile(row=row, images=(row,), value=probability)
                for row, probability in zip(block.rows, block.probabilities, strict=True)
            ],
        )
        for block in choose(top(by_label(ledger), PICTURED)[0], BY_LABEL)
    ]
