"""Near duplicates by meaning: images whose vectors have a cosine at or above a threshold."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from clipsieve.core.threads import single_blas
from clipsieve.dedup import methods
from clipsieve.dedup.classes import Classes
from clipsieve.dedup.neighbours import Neighbours
from clipsieve.dedup.preference import Preference
from clipsieve.dedup.removal import Removal, check_links, decide
from clipsieve.dedup.result import Duplicates, Links, Progress
from clipsieve.dedup.vectors import DECIMALS, UnitVectors, distance_limit

EXACT_PAIRS = 500_000**2 // 2
"""Pairs up to which ``auto`` searches exactly, those of 500,000 images: near there an approximate one is as quick."""

Method: TypeAlias = Literal["auto", "exact", "approximate"]


def semantic(
    vectors: npt.ArrayLike,
    threshold: float = 0.90,
    *,
    order: npt.ArrayLike | None = None,
    units: npt.ArrayLike | None = None,
    links: Links = "any",
    method: Method = "auto",
    against: npt.ArrayLike | None = None,
    progress: Progress | None = None,
) -> Duplicates:
    """Finds images of which another has a vector with a cosine at or above ``threshold``.

    ``vectors`` ``(n, dim)`` need not be of unit length and may be a memory map; a row of NaN, infinity or zeros is
    passed over. ``order`` ``(n,)`` names the images from the one to keep to the one to lose (default: as they come).
    ``units`` ``(n,)`` gives images that go together one number; they are neighbours in ``order``. ``against``
    ``(m, dim)`` is an earlier data set: it comes before everything and is never removed; its images are ``n``,
    ``n + 1``, ... in the result.

    The cosine is that of the vectors with each coordinate at 26 binary digits, and is compared as it is reported, at 5
    decimals. Raises ``ValueError`` where the arguments do not fit together.
    """
    ours, others = _matrix(vectors, "vectors"), None if against is None else _matrix(against, "against")
    if others is None or not len(ours) or not len(others):
        others = None  # nothing to compare with, or nothing to compare
    else:
        check_dimensions(ours.shape[1], others.shape[1])
    check_threshold(threshold, method)
    check_links(links)
    preference = Preference.of(len(ours), 0 if others is None else len(others), order, units)

    rows = UnitVectors(ours, others)
    classes = Classes.build(rows.labels(), preference)
    found = Neighbours(classes, preference, distance_limit(threshold))
    approximate = is_approximate(classes, method)
    with single_blas():
        recall = (methods.approximate if approximate else methods.exact)(rows, found, progress)
        removal = decide(found, lambda a, b: rows.distances(classes.first[a], classes.first[b]), links)
    return duplicates(found, removal, recall, approximate=approximate)


def check_dimensions(ours: int, others: int) -> None:
    """Raises ``ValueError`` where the vectors of an earlier data set have not as many as ``ours``."""
    if others != ours:
        raise ValueError(f"vectors have {ours} dimensions, those of against {others}")


def check_threshold(threshold: float, method: Method) -> None:
    """Raises ``ValueError`` where either is none."""
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold is a cosine between -1 and 1, not {threshold}")
    if method not in get_args(Method):
        raise ValueError(f"method is 'auto', 'exact' or 'approximate', not {method!r}")


def is_approximate(classes: Classes, method: Method) -> bool:
    """Whether the search is approximate: asked for, or taken because there are many pairs."""
    pairs = classes.wanted * (len(classes) - classes.wanted // 2)
    return method == "approximate" or (method == "auto" and pairs > EXACT_PAIRS)


def duplicates(found: Neighbours, removal: Removal, recall: float | None, *, approximate: bool) -> Duplicates:
    """What a search has ``found`` and what goes because of it."""
    nearest, distance = found.nearest()
    return Duplicates(
        removed=removal.removed,
        group=removal.group,
        duplicate_of=removal.duplicate_of,
        nearest=nearest,
        max_similarity=np.where(nearest < 0, np.nan, (DECIMALS - distance) / DECIMALS),
        method="vectors, approximate search" if approximate else "vectors, exact search",
        recall=recall,
    )


def _matrix(vectors: npt.ArrayLike, name: str) -> npt.NDArray[np.floating]:
    array: npt.NDArray[np.floating] = np.asarray(vectors)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(f"{name} is an (n, dim) array of floats, not {array.dtype} of shape {array.shape}")
    return array
