"""What a parameter of a stage may be; where it is something else, one line names the stage, the parameter and both."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import pyarrow as pa

from clipsieve.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """A kind of value: in words, and how it is known."""

    words: str
    fits: Callable[[Any], bool]

    @property
    def or_none(self) -> Kind:
        """The same, or None."""
        return Kind(self.words, lambda value: value is None or self.fits(value))


def one_of(*known: str) -> Kind:
    """One of several words."""
    return Kind(f"one of {', '.join(known)}", lambda value: isinstance(value, str) and value in known)


def check(stage: object, hint: Callable[[str], str] = lambda said: "", /, **kinds: Kind) -> None:
    """Raises ``UsageError`` for the first parameter of ``stage`` that is not of its kind; ``hint`` ends the line."""
    for parameter, kind in kinds.items():
        value = getattr(stage, parameter)
        if not kind.fits(value):
            said = reprlib.repr(value)
            name = getattr(stage, "name", None)
            where = name if isinstance(name, str) else type(stage).__name__
            raise UsageError(f"{where}: {parameter} is {kind.words}, not {said}{hint(said)}")


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not _is_flag(value) and int(value) >= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_path(value: Any) -> bool:
    return _is_text(os.fspath(value)) if isinstance(value, (str, os.PathLike)) else False


def _all(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(fits, value))


FLAG = Kind("True or False", _is_flag)
NUMBER = Kind("a number", lambda value: isinstance(value, Real) and not _is_flag(value))
COUNT = Kind("a whole number from 1 on", _is_count)
TEXT = Kind("text", _is_text)
PATH = Kind("a path", _is_path)
PATHS = Kind("a path, a glob, a folder or a list of them", lambda value: _is_path(value) or _all(value, _is_path))
COLUMNS = Kind("a list of columns", lambda value: _all(value, _is_text))
READ_KWARGS = Kind(
    "a mapping, and so are storage_options in it",
    lambda value: isinstance(value, Mapping) and isinstance(value.get("storage_options") or {}, Mapping),
)
SCHEMA = Kind("a pyarrow.Schema", lambda value: isinstance(value, pa.Schema))
TYPES = Kind(
    "a mapping of columns to types of pyarrow",
    lambda value: (
        isinstance(value, Mapping)
        and all(_is_text(name) and isinstance(kind, pa.DataType) for name, kind in value.items())
    ),
)
