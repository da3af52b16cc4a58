"""Rules replayed in order over the scores of whole samples: what stays, what goes, and why.

The decisions are a pure function of what the ledger stores, so they can be replayed from it alone; an image that
an earlier rule dropped is not looked at by a later one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.core.layout import Mask
from clipsieve.core.rules import Rule

OnError: TypeAlias = Literal["drop", "drop-sample", "keep", "stop"]
"""What a failed image does: it alone goes, its whole sample goes, it stays, or the run stops."""

Unit: TypeAlias = Literal["image", "pair", "sample"]

HOLLOW = "invalid_rows: drop"
"""What stands in the ledger as the rule by which documents without content go."""


@dataclass(frozen=True, kw_only=True)
class BoundRule:
    """A rule with what its score says of it: the unit, why a value is missing, and what goes when it fails."""

    rule: Rule
    unit: Unit
    why_missing: str
    drop: Literal["image", "sample"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Which images, pairs and content the samples have.

    ``image_samples`` ``(images,)`` and ``pairs`` ``(pairs, 2)`` as in ``Batch``; ``has_text`` ``(samples,)``
    marks the samples that hold content even without images.
    """

    samples: int
    image_samples: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.int64]
    has_text: Mask
    hollow: Mask | None = None
    """Samples without any content, images included, that go for it; None for no samples."""
    surplus: Mask | None = None
    """Images that always go when they fail, and alone, whatever ``on_error`` says of others; None for no images."""


class Verdicts:
    """The state of a decision: who is still in, and for the others the rule and the reason."""

    def __init__(self, geometry: Geometry) -> None:
        images, samples = len(geometry.image_samples), geometry.samples
        self.geometry = geometry
        self.images: Mask = np.ones(images, dtype=bool)
        self.samples: Mask = np.ones(samples, dtype=bool)
        self.failed: Mask = np.zeros(images, dtype=bool)
        self.exempt: Mask = np.zeros(images, dtype=bool)
        self.image_rules: list[str | None] = [None] * images
        self.image_reasons: list[str | None] = [None] * images
        self.sample_rules: list[str | None] = [None] * samples
        self.sample_reasons: list[str | None] = [None] * samples
        self.sample_failed: Mask = np.zeros(samples, dtype=bool)
        counts = np.bincount(geometry.image_samples, minlength=samples)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        # A sample that never had an image stays until a rule on samples says otherwise.
        self._content = geometry.has_text | (counts == 0)

    def fail(self, errors: Mapping[int, str], on_error: OnError) -> None:
        """Takes out the images that could not be fetched or decoded, as ``on_error`` says."""
        self.failed[list(errors)] = True
        surplus = np.zeros_like(self.failed) if self.geometry.surplus is None else self.geometry.surplus
        if on_error == "keep":
            self.exempt |= self.failed & ~surplus
        self.images[self.failed & ~self.exempt] = False
        for image in sorted(errors):
            sample = int(self.geometry.image_samples[image])
            if on_error == "drop-sample" and self.samples[sample] and not surplus[image]:
                self.sample_failed[sample] = True
                number = image - int(self._starts[sample])
                self.drop_samples(np.array([sample]), None, [f"image {number} failed: {errors[image]}"])
        self._drop_empty()

    def apply(self, bound: BoundRule, values: npt.NDArray[Any]) -> None:
        """Applies one rule to the values of its unit, ``(images,)``, ``(pairs,)`` or ``(samples,)``."""
        rule = bound.rule
        if rule.quantifier or bound.unit == "pair":
            self._apply_groups(bound, values)
        elif bound.unit == "sample":
            failing = np.flatnonzero(self.samples & ~rule.passes(values))
            reasons = [rule.reason(values[[s]], bound.why_missing) for s in failing]
            self.drop_samples(failing, rule.text, reasons)
        else:
            failing = np.flatnonzero(self.images & ~self.exempt & ~rule.passes(values))
            reasons = [rule.reason(values[[i]], bound.why_missing) for i in failing]
            self.drop_images(failing, rule.text, reasons, whole_sample=bound.drop == "sample")

    def _apply_groups(self, bound: BoundRule, values: npt.NDArray[Any]) -> None:
        judged = self.images & ~self.exempt
        if bound.unit == "pair":
            present = judged[self.geometry.pairs].all(axis=1)
            groups = self.geometry.image_samples[self.geometry.pairs[:, 0]]
        else:
            present, groups = judged, self.geometry.image_samples
        values, groups = values[present], groups[present]
        passed = bound.rule.passes_groups(values, groups, self.geometry.samples)
        failing = np.flatnonzero(self.samples & ~passed)
        none = "fewer than two images" if bound.unit == "pair" else "no image"
        found = [values[groups == sample] for sample in failing]
        reasons = [bound.rule.reason(of, bound.why_missing if len(of) else none) for of in found]
        self.drop_samples(failing, bound.rule.text, reasons)

    def drop_images(
        self, images: npt.NDArray[np.int64], rule: str, reasons: Sequence[str], *, whole_sample: bool
    ) -> None:
        """Drops ``images`` (indices) for ``rule``, each with its reason, or with the rest of its sample."""
        samples: dict[int, str] = {}
        for image, reason in zip(images.tolist(), reasons, strict=True):
            self.images[image] = False
            self.image_rules[image] = rule
            self.image_reasons[image] = reason
            samples.setdefault(int(self.geometry.image_samples[image]), reason)
        if whole_sample:
            self.drop_samples(np.array(list(samples), dtype=np.int64), rule, list(samples.values()))
        self._drop_empty()

    def drop_samples(self, samples: npt.NDArray[np.int64], rule: str | None, reasons: Sequence[str]) -> None:
        """Drops ``samples`` (indices) with all their images for ``rule``, each with its reason."""
        for sample, reason in zip(samples.tolist(), reasons, strict=True):
            self.samples[sample] = False
            self.sample_rules[sample] = rule
            self.sample_reasons[sample] = reason
            for image in self._images_of(sample):
                if self.images[image]:
                    self.images[image] = False
                    self.image_rules[image] = rule
                    self.image_reasons[image] = f"sample dropped: {reason}"

    def lose_content(self, samples: npt.NDArray[np.int64], rule: str) -> None:
        """``samples`` (indices) have lost the rows that held content beside images: those without images go, too."""
        self._content[samples] = False
        left = np.bincount(self.geometry.image_samples[self.images], minlength=self.geometry.samples)
        empty = samples[self.samples[samples] & (left[samples] == 0)]
        self.drop_samples(empty, rule, ["nothing left"] * len(empty))

    def _images_of(self, sample: int) -> range:
        return range(int(self._starts[sample]), int(self._starts[sample + 1]))

    def _drop_empty(self) -> None:
        left = np.bincount(self.geometry.image_samples[self.images], minlength=self.geometry.samples) > 0
        empty = np.flatnonzero(self.samples & ~left & ~self._content)
        for sample in empty.tolist():
            self.samples[sample] = False
            dropped = [image for image in self._images_of(sample) if self.image_rules[image] is not None]
            if dropped:
                self.sample_rules[sample] = self.image_rules[dropped[-1]]
                self.sample_reasons[sample] = "nothing left"
            else:
                self.sample_failed[sample] = True


def decide(
    rules: Sequence[BoundRule],
    scores: Mapping[str, npt.NDArray[Any]],
    geometry: Geometry,
    errors: Mapping[int, str],
    on_error: OnError,
) -> Verdicts:
    """Replays ``rules`` in order over ``scores`` (name to values of the score's unit)."""
    verdicts = Verdicts(geometry)
    if geometry.hollow is not None:
        hollow = np.flatnonzero(geometry.hollow)
        verdicts.drop_samples(hollow, HOLLOW, ["no content"] * len(hollow))
    verdicts.fail(errors, on_error)
    for bound in rules:
        verdicts.apply(bound, scores[bound.rule.name])
    return verdicts
