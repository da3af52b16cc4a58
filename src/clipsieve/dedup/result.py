"""What every tier of dedup answers, and the links it may follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.core.layout import Mask

Links: TypeAlias = Literal["any", "leader", "group"]
"""Which links remove: to any earlier unit, to an earlier one that stays, or all of a group but its first unit."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the steps that are done and their total."""

Numbers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Duplicates:
    """What dedup found, a value an image of the input, ``(n,)``; images of ``against`` count on from ``n``.

    Of equally similar images an identical one (the same vector, hash or bytes) is named first, then the earlier in
    order of preference. Images of one unit are never compared with each other.
    """

    removed: Mask
    """The image goes by a link of its own; with units, its unit goes and the other images of it have False."""

    group: Numbers
    """The lowest number of the images that links connect it with, itself included; -1 for an image without a link."""

    nearest: Numbers
    """The most similar other image, -1 for none. ``perceptual`` and ``exact`` look no further than their threshold."""

    duplicate_of: Numbers
    """If removed, the most similar image that stays among those it is linked with; -1 for none."""

    method: str
    """What was compared and how: ``vectors, exact search`` or ``approximate search``, ``hashes, exact search``, or
    ``equal bytes``."""

    max_similarity: npt.NDArray[np.float64] | None = None
    """``semantic``: the cosine with ``nearest``, 5 decimals; NaN without one."""

    distance: Numbers | None = None
    """``perceptual``: bits that differ from ``nearest``; -1 without one."""

    recall: float | None = None
    """An approximate search's share of the links that an exact search of a sample of images finds; 1.0 is all."""
