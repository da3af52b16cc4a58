"""CSV as columns of values: numbers where all cells of a column are such, without leading zeros, text otherwise.

Rows that do not fit the header are skipped and said.
"""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipsieve.dropin.dataflow.jsontext import in_words

_LARGEST_CELL = 2**31 - 1

_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}")
_NUMBER = re.compile(r"-?(?:(?:0|[1-9]\d{0,14})(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|-?inf")
"""Longer integers would not survive among fractions."""

log = logging.getLogger("clipsieve")


def read_columns(path: str) -> dict[str, list[Any]]:
    """The columns of a CSV file by their names, None for an empty cell; none of an empty file.

    Rows with more or fewer cells than the header are skipped, and a warning names their lines. Raises ``ValueError``
    when no row fits, and for what is no CSV.
    """
    csv.field_size_limit(_LARGEST_CELL)  # that of the module is 131,072
    rows: list[list[str]] = []
    skipped: dict[int, str] = {}
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as failure:
                if "end of data" in str(failure):
                    raise ValueError(f"{path}: a quote in line {line} is never closed") from None
                if header is None:
                    raise ValueError(f"{path}: the header in line {line} is no CSV: {failure}") from None
                skipped[line] = str(failure)
                continue
            if row is None:
                break
            if not row:
                continue
            if header is None:
                header = _names(path, row)
            elif len(row) != len(header):
                skipped[line] = f"{len(row)} cells, not {len(header)}"
            else:
                rows.append(row)
    if skipped and not rows:
        raise ValueError(f"{path}: no row fits the header: {in_words(skipped)}")
    if skipped:
        log.warning("%s: skipped what does not fit the header: %s", path, in_words(skipped))
    return {name: _values([row[place] for row in rows]) for place, name in enumerate(header or ())}


def _names(path: str, header: Sequence[str]) -> list[str]:
    """The names of the columns; one without a name, as pandas writes an index, gets the one that pandas gives it."""
    names = [name or f"Unnamed: {place}" for place, name in enumerate(header)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path}: two columns have the name {twice!r}; rename one")
    return names


def _values(cells: Sequence[str]) -> list[Any]:
    """What the cells of a column say: all integers, all numbers, all ``True`` or ``False``, or all text."""
    said = {cell for cell in cells if cell}
    if said and all(map(_INTEGER.fullmatch, said)):
        return [int(cell) if cell else None for cell in cells]
    if said and all(map(_is_number, said)):
        return [float(cell) if cell else None for cell in cells]
    if said and said <= {"True", "False"}:
        return [cell == "True" if cell else None for cell in cells]
    return [cell or None for cell in cells]


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None and (cell.endswith("inf") or math.isfinite(float(cell)))
