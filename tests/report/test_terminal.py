"""What a run says of itself in a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from clipsieve.report.facts import duration
from clipsieve.report.terminal import duplicates_line

ABOUT: dict[str, Any] = {
    "method": "vectors, exact search", "compared": 1200, "removed": 3, "groups": 1, "recall": 1.0, "against": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, "vectors, exact search: 1,200 images compared; 3 near duplicates, in 1 group"),
        (
            {"method": "vectors, approximate search", "recall": 0.99951, "groups": 2},
            "vectors, approximate search (measured recall 0.9995): 1,200 images compared; "
            "3 near duplicates, in 2 groups",
        ),
        (
            {"method": "vectors, approximate search", "recall": None, "removed": 0, "groups": 0},
            "vectors, approximate search (recall unknown: no link in the sample): 1,200 images compared; "
            "0 near duplicates, in 0 groups",
        ),
        (
            {"against": {"name": "earlier", "images": 5000}},
            "vectors, exact search: 1,200 images compared, also with the 5,000 of earlier; "
            "3 near duplicates, in 1 group",
        ),
    ],
)
def test_how_near_duplicates_were_sought_is_one_line(changed: dict[str, Any], line: str) -> None:
    assert duplicates_line({**ABOUT, **changed}) == f"dedup   {line}"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.042, "0.04 s"), (59.94, "59.9 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_times_are_told_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told
