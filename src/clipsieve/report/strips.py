"""The images that a report shows, by where they stand on it: ledger rows, and no pictures yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clipsieve.core.decide import Unit
from clipsieve.report.thresholds import Threshold


@dataclass(frozen=True, kw_only=True)
class Tile:
    """An image, or those of a pair or a sample: the ledger rows of its ``images``, and the ``row`` of its scores."""

    row: int
    images: tuple[int, ...]
    value: float | None = None
    sample: bool = False
    """Whether it stands for its sample, whose verdict is its own."""
    more: int = 0
    """Images of the sample that are not shown."""


@dataclass(frozen=True, kw_only=True)
class AtThreshold:
    """What lies nearest to a threshold: the dropped and the passed, the nearest first, and of how many of ``unit``."""

    at: Threshold
    unit: Unit
    dropped: Sequence[Tile]
    dropped_of: int
    passed: Sequence[Tile]
    passed_of: int


@dataclass(frozen=True, kw_only=True)
class OfRule:
    """What a rule took out: a random choice of the ``images`` it dropped, and what lies at its thresholds.

    ``score`` is what it judges by, None for a filter in Python. ``missing`` counts the images that it dropped since
    there is no value. ``dropped`` is empty where the thresholds show them all. ``shards`` is from how many the choice
    comes, None for all.
    """

    rule: str
    score: str | None
    images: int
    missing: int
    thresholds: Sequence[AtThreshold]
    dropped: Sequence[Tile]
    shards: int | None


@dataclass(frozen=True, kw_only=True)
class OfScore:
    """Images at ``PLACES`` of the ``values`` of a score, the lowest first."""

    score: str
    unit: Unit
    values: int
    tiles: Sequence[Tile]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Near duplicates of each other, ``images`` in all: those that stay first, then those that went."""

    images: int
    tiles: Sequence[Tile]


@dataclass(frozen=True, kw_only=True)
class OfLabel:
    """Images of one label from the surest to the least sure."""

    label: str
    images: int
    tiles: Sequence[Tile]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """All that a report shows."""

    rules: Sequence[OfRule]
    scores: Sequence[OfScore]
    groups: Sequence[Group]
    labels: Sequence[OfLabel]

    def tiles(self) -> Iterator[Tile]:
        """In the order of the page."""
        for rule in self.rules:
            for threshold in rule.thresholds:
                yield from (*threshold.dropped, *threshold.passed)
            yield from rule.dropped
        for score in self.scores:
            yield from score.tiles
        for group in self.groups:
            yield from group.tiles
        for label in self.labels:
            yield from label.tiles
