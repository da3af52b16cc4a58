"""What a run says of itself in a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from clipsieve.core.text import printable
from clipsieve.report.facts import duration
from clipsieve.report.numbers import ErrorKind
from clipsieve.report.terminal import duplicates_line, error_table
from clipsieve.report.words import number, shown

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
    ("value", "told"),
    [
        (0.25, "0.25"), (0.249991, "0.24999"), (640.0, "640"), (1234.5, "1,234.5"), (99999.7, "100,000"),
        (123456.0, "123,456"), (3.4e6, "3.4M"), (1e12, "1,000G"), (-0.5, "-0.5"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_a_number_is_written_in_one_way(value: float, told: str) -> None:
    assert number(value) == shown(value) == told


def test_of_few_digits_whole_numbers_stay_whole() -> None:
    assert [number(value, 3) for value in (0.27341, 999.7, 12345.6)] == ["0.273", "1,000", "12,346"]


def test_the_kind_of_an_error_stands_beside_its_count_and_an_example_beside_it() -> None:
    kinds = [ErrorKind(kind="undecodable", images=12, examples=[("a.png", "no frame")])]
    kinds += [ErrorKind(kind=f"kind {number}", images=2, examples=[("b.png", "")]) for number in range(10)]
    console = Console(file=io.StringIO(), width=80)
    console.print(error_table(kinds))
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[1] == ["12", "undecodable", "a.png:", "no", "frame"]
    assert lines[-1] == ["and", "1", "more", "kind", "of", "errors,", "2", "images"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("می\u200cخواهم क्\u200dष 👨\u200d👩\u200d👧", "می\u200cخواهم क्\u200dष 👨\u200d👩\u200d👧"),
        ("a\u00a0b\u3000c", "a\u00a0b\u3000c"),
        ("\x1b[31m\n\u202ex\u2066\u200e\u200f\ud800\u2028", r"\x1b[31m\n\u202ex\u2066\u200e\u200f\ud800\u2028"),
    ],
)
def test_what_steers_is_spelt_out_and_what_joins_letters_stays(text: str, told: str) -> None:
    assert printable(text) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.042, "0.04 s"), (59.94, "59.9 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_times_are_told_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told
