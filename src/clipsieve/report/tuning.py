"""What other rules would change, in images: the funnel before and after, and what each rule drops and turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.core.decide import BoundRule
from clipsieve.core.layout import Mask
from clipsieve.core.replay import BESIDE, FAILED, KEPT, UNKNOWN, Decision, Replay


@dataclass(frozen=True, kw_only=True)
class Step:
    """A rule of either list: the images it ``dropped`` and the images it ``left``, ``None`` where it is not in it.

    ``to_kept`` were dropped by it before and are kept now, ``to_dropped`` were kept before and are dropped by it now.
    ``alone``, without any other rule, and ``last``, after all others, it drops at least and at most so many: of some it
    is not known. None for a rule that is no longer there.
    """

    rule: str
    dropped: tuple[int | None, int | None]
    left: tuple[int | None, int | None]
    to_kept: int
    to_dropped: int
    alone: tuple[int, int] | None
    last: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Images or samples by what becomes of them; ``unknown`` ones lack a score that early exit left out."""

    kept: int
    dropped: int
    failed: int
    unknown: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A run's own rules beside others: ``images`` and ``samples`` before and after.

    ``to_unknown`` images were kept or dropped before; ``lacking`` counts all that are unknown by the score they lack.
    """

    steps: Sequence[Step]
    images: tuple[Tally, Tally]
    samples: tuple[Tally, Tally]
    to_kept: int
    to_dropped: int
    lacking: Mapping[str, int]


def compare(
    replay: Replay, before: Decision, after: Decision, decide: Callable[[Sequence[BoundRule]], Decision]
) -> Comparison:
    """Holds ``after`` against ``before``; ``decide`` decides other lists of the rules of ``after``."""
    images = replay.is_image
    kept = [images & (decision.out_by == KEPT) for decision in (before, after)]
    own, new = _numbers(before), _numbers(after)
    funnels = [_funnel(images, decision) for decision in (before, after)]
    steps = []
    for text in _in_order(before.rules, after.rules):
        (was, had_left), (now, has_left) = (funnel.get(text, (None, None)) for funnel in funnels)
        alone, last = _by_itself(images, after, new[text], decide) if text in new else (None, None)
        steps.append(
            Step(
                rule=text,
                dropped=(was, now),
                left=(had_left, has_left),
                to_kept=int((kept[1] & _among(before.out_by, own.get(text, ()))).sum()),
                to_dropped=int((kept[0] & _among(after.out_by, new.get(text, ()))).sum()),
                alone=alone,
                last=last,
            )
        )
    return Comparison(
        steps=steps,
        images=(_tally(before.out_by[images]), _tally(after.out_by[images])),
        samples=(_tally(before.samples_out_by), _tally(after.samples_out_by)),
        to_kept=int((kept[1] & ~kept[0]).sum()),
        to_dropped=int((kept[0] & ~kept[1] & (after.out_by != UNKNOWN)).sum()),
        lacking=after.lacking,
    )


def _tally(codes: npt.NDArray[np.int16]) -> Tally:
    kept, failed, unknown = (int((codes == code).sum()) for code in (KEPT, FAILED, UNKNOWN))
    return Tally(kept=kept, failed=failed, unknown=unknown, dropped=len(codes) - kept - failed - unknown)


def _among(codes: npt.NDArray[np.int16], few: Sequence[int]) -> Mask:
    """Which of ``codes`` are among a few; several times as quick as to look them up in a set."""
    found = np.zeros(len(codes), dtype=bool)
    for code in few:
        found |= codes == code
    return found


def _numbers(decision: Decision) -> dict[str, list[int]]:
    """The numbers of each rule by its text: rules that differ in what they drop may read alike."""
    found: dict[str, list[int]] = {}
    for number, bound in enumerate(decision.rules):
        found.setdefault(bound.rule.text, []).append(number)
    return found


def _funnel(images: Mask, decision: Decision) -> dict[str, tuple[int, int]]:
    """What each rule took out and what it left; those that are not known are left."""
    codes = decision.out_by[images]
    left = len(codes) - int(_among(codes, (FAILED, BESIDE)).sum())
    found = {}
    for text, numbers in _numbers(decision).items():
        out = int(_among(codes, numbers).sum())
        left -= out
        found[text] = (out, left)
    return found


def _in_order(before: Sequence[BoundRule], after: Sequence[BoundRule]) -> Iterator[str]:
    """The rules of both lists, each once and those of a score together, in the order in which either decides."""
    names = list(dict.fromkeys(bound.rule.name for bound in before))
    place = 0
    for name in dict.fromkeys(bound.rule.name for bound in after):
        if name not in names:
            names.insert(place, name)
        place = names.index(name) + 1
    for name in names:
        yield from dict.fromkeys(bound.rule.text for bound in (*before, *after) if bound.rule.name == name)


def _by_itself(
    images: Mask, after: Decision, numbers: Sequence[int], decide: Callable[[Sequence[BoundRule]], Decision]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """What rules of one text drop alone, and what last, of the images that all others keep: at least, and at most."""
    alone = decide([after.rules[number] for number in numbers]).out_by
    others = decide([bound for number, bound in enumerate(after.rules) if number not in numbers]).out_by
    lost = (others == KEPT) & (after.out_by != KEPT) & (after.out_by != UNKNOWN)
    # Of those that they drop before others are asked, the others may have nothing to say.
    open_ = (others == UNKNOWN) & _among(after.out_by, numbers) | (others == KEPT) & (after.out_by == UNKNOWN)
    dropped, unknown, last, maybe = (int((images & some).sum()) for some in (alone >= 0, alone == UNKNOWN, lost, open_))
    return (dropped, dropped + unknown), (last, last + maybe)
