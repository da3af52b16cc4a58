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
    Of the images that it would judge ``alone``, without any other rule, and ``last``, after all others, it drops so
    many; None for a rule that is no longer there.
    """

    rule: str
    dropped: tuple[int | None, int | None]
    left: tuple[int | None, int | None]
    to_kept: int
    to_dropped: int
    alone: int | None
    last: int | None


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
    own = {bound.rule.text: number for number, bound in enumerate(before.rules)}
    new = {bound.rule.text: number for number, bound in enumerate(after.rules)}
    funnels = [_funnel(images, decision) for decision in (before, after)]
    steps = []
    for text in _in_order(before.rules, after.rules):
        (was, had_left), (now, has_left) = (funnel.get(text, (None, None)) for funnel in funnels)
        alone, last = _by_itself(replay, after, new[text], decide) if text in new else (None, None)
        steps.append(
            Step(
                rule=text,
                dropped=(was, now),
                left=(had_left, has_left),
                to_kept=int((kept[1] & (before.out_by == own[text])).sum()) if text in own else 0,
                to_dropped=int((kept[0] & (after.out_by == new[text])).sum()) if text in new else 0,
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


def _funnel(images: Mask, decision: Decision) -> dict[str, tuple[int, int]]:
    """What each rule took out and what it left; those that are not known are left."""
    codes = decision.out_by[images]
    left = len(codes) - int(np.isin(codes, (FAILED, BESIDE)).sum())
    found = {}
    for number, bound in enumerate(decision.rules):
        out = int((codes == number).sum())
        left -= out
        found[bound.rule.text] = (out, left)
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
    replay: Replay, after: Decision, number: int, decide: Callable[[Sequence[BoundRule]], Decision]
) -> tuple[int, int]:
    """What a rule drops alone, and what it drops last, of the images that all others keep."""
    bound = after.rules[number]
    alone = decide([bound]).out_by == 0
    others = decide([*after.rules[:number], *after.rules[number + 1 :]]).out_by == KEPT
    lost = others & (after.out_by != KEPT) & (after.out_by != UNKNOWN)
    return int((replay.is_image & alone).sum()), int((replay.is_image & lost).sum())
