"""Tables as JSON text: objects on lines of their own, over several lines or in an array, and rows as such objects.

What does not parse is skipped and said; what JSON cannot hold is refused.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 10
"""So many places of skipped lines are named in full."""

log = logging.getLogger("clipsieve")


def read_objects(path: str) -> list[dict[str, Any]]:
    """The JSON objects of a file: in an array, on lines of their own, or over several lines one after another.

    What does not parse is skipped, and a warning names the lines; ``ValueError`` when nothing does. After a broken
    object the next one is taken up where it is indented no deeper: what stands deeper is a part of the broken one.
    """
    # What is not UTF-8 becomes surrogates, by which its lines are known.
    text = Path(path).read_bytes().decode("utf-8-sig", errors="surrogateescape")
    found: list[dict[str, Any]] = []
    skipped: dict[int, str] = {}
    rows = _array(text)
    if rows is not None:
        found = [row for row in rows if isinstance(row, dict)]
        if len(found) < len(rows):
            raise ValueError(f"{path}: an array with items that are no objects, not one such as [{{'image': 'a.jpg'}}]")
    else:
        line, start, deepest = 1, 0, math.inf
        while start < len(text):
            value, stop = _object_at(text, start, deepest)
            if isinstance(value, _Skipped):
                skipped[line] = value.reason
                deepest = min(deepest, value.deepest)
            elif value is not None:
                found.append(value)
                deepest = math.inf
            line += text.count("\n", start, stop)
            start = stop
    if skipped and not found:
        raise ValueError(f"{path}: holds no JSON object: {in_words(skipped)}")
    if skipped:
        log.warning("%s: skipped what is no JSON object: %s", path, in_words(skipped))
    return [_sound(row) for row in found] if "\\u" in text else found


_DECODER = json.JSONDecoder()

_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def _array(text: str) -> list[Any] | None:
    """The items, when all of the text is one sound JSON array."""
    if not text.lstrip().startswith("[") or _NOT_UTF8.search(text):
        return None
    try:
        rows: list[Any] = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return rows


class _Skipped(NamedTuple):
    """A line that is no object or begins a broken one; what is indented deeper than ``deepest`` is a part of that."""

    reason: str
    deepest: float = math.inf


def _object_at(text: str, start: int, deepest: float) -> tuple[dict[str, Any] | _Skipped | None, int]:
    """What begins at ``start``, and where it ends: an object, nothing (blank), or a line and why it is none."""
    end = text.find("\n", start) + 1 or len(text)
    line = text[start:end]
    if not line.strip():
        return None, end
    indentation = len(line) - len(line.lstrip())
    begins = start + indentation
    if indentation > deepest:
        return _Skipped("in a broken object"), end
    if text[begins] != "{":
        return _Skipped("not an object"), end
    try:
        value, stop = _decoded(text, begins, end)
    except RecursionError:
        return _Skipped("nested too deeply", indentation), end
    except json.JSONDecodeError as failure:
        return _Skipped(failure.msg, indentation), end
    except ValueError:  # the only other reason, against numbers that take minutes to read
        return _Skipped("a number of thousands of digits", indentation), end
    if _NOT_UTF8.search(text, begins, stop):
        return _Skipped("not UTF-8"), max(stop, end)
    stop += text[stop : stop + 1] == ","  # what is left of an array
    rest = text[stop:end].strip()
    if rest and rest[0] != "{":
        return _Skipped(f"{rest[:20]!r} after the object"), end
    return value, stop


def _decoded(text: str, begins: int, end: int) -> tuple[Any, int]:
    """The value that begins there, and where it ends: before ``end``, or later where it only lacks what follows.

    Little by little, since a ``JSONDecodeError`` counts all lines before it. Raises ``ValueError``.
    """
    while True:
        piece = text[begins:end]
        try:
            value, length = _DECODER.raw_decode(piece)
        except json.JSONDecodeError as failure:
            if failure.pos < len(piece.rstrip()) or end == len(text):
                raise
        else:
            return value, begins + length
        end = text.find("\n", begins + 2 * len(piece)) + 1 or len(text)


def _sound(row: Any) -> Any:
    """``row`` with halves of surrogate pairs, which ``\\ud83d`` alone gives, as question marks: no file holds them."""
    if isinstance(row, str):
        return row if row.isascii() else row.encode(errors="replace").decode()
    if isinstance(row, dict):
        return {_sound(key): _sound(value) for key, value in row.items()}
    return [_sound(value) for value in row] if isinstance(row, list) else row


def in_words(skipped: Mapping[int, str]) -> str:
    """Line numbers, neighbours of one reason together: ``line 3 (not UTF-8), lines 7-9 (not an object)``."""
    stretches: list[tuple[int, int]] = []
    for line, reason in skipped.items():
        if stretches and line == stretches[-1][1] + 1 and reason == skipped[stretches[-1][0]]:
            stretches[-1] = stretches[-1][0], line
        else:
            stretches.append((line, line))
    told = [
        f"{f'line {first}' if first == last else f'lines {first}-{last}'} ({skipped[first]})"
        for first, last in stretches[:_SHOWN]
    ]
    more = len(stretches) - _SHOWN
    return ", ".join(told) + (f" and {more} more places" if more > 0 else "")


def json_rows(frame: pd.DataFrame) -> Iterator[str]:
    """A row as JSON text, numbers with all their digits; what is missing, or no finite number, is null."""
    columns = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame.columns]
    names = [str(name) for name in frame.columns]
    for cells in zip(*columns, strict=True):
        row = dict(zip(names, cells, strict=True))
        try:
            yield json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain)
        except ValueError:
            yield json.dumps(_finite(row), ensure_ascii=False, allow_nan=False, default=lambda v: _finite(_plain(v)))


def _plain(value: Any) -> Any:
    """What JSON has in place of ``value``. Raises ``ValueError`` when it has nothing."""
    if hasattr(value, "isoformat"):  # dates and times, pandas' own among them
        return value.isoformat()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy's numbers and arrays
        return value.tolist()
    raise ValueError(unwritable(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unwritable(value: Any) -> str:
    """Why no text file can hold a cell, and what to do."""
    if isinstance(value, bytes):
        return "bytes cannot be written as text; use cache_type='parquet'"
    return f"a cell holds {type(value).__name__}, which no file holds; save images as files and name their paths"
