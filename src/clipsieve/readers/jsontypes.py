"""JSON values as typed Arrow columns: types inferred from examples, and values held to them.

A column has one kind of value: integers and floats widen to floats, a value beside lists of its kind counts as a
list of one. Where kinds mix otherwise the column becomes text: strings as they are, other values as JSON.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

MAX_FIELDS = 100
"""An object with more different keys than this is a table of its own (counts by name), kept as JSON text."""

_INT64 = range(-(2**63), 2**63)


class MisfitError(Exception):
    """A value that does not have the type of its column; the text says which and what was expected."""


class _MixedError(Exception):
    """Kinds of values that no single type holds."""


@dataclass(frozen=True, kw_only=True)
class JsonSchema:
    """Arrow types by column; ``mixed`` are the string columns that hold other values as JSON text."""

    types: Mapping[str, pa.DataType]
    mixed: frozenset[str]

    @property
    def arrow(self) -> pa.Schema:
        """The same as an Arrow schema."""
        return pa.schema(list(self.types.items()))

    def cells(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row's values as Arrow takes them, null where a column is absent. Raises ``MisfitError``."""
        if unknown := row.keys() - self.types.keys():
            name = min(unknown)
            raise MisfitError(
                f"column {name!r} is new here (value {_shown(row[name])}); columns are those of the sampled rows"
            )
        return {name: self._cell(name, row.get(name), kind) for name, kind in self.types.items()}

    def _cell(self, name: str, value: Any, kind: pa.DataType) -> Any:
        try:
            return _as_text(value) if name in self.mixed else _conform(value, kind)
        except MisfitError as misfit:
            raise MisfitError(f"column {name!r} holds {misfit}") from None


def infer(rows: Sequence[Mapping[str, Any]], images: Collection[str] = ()) -> JsonSchema:
    """The columns of all keys in the order in which they appear, typed by all of their values.

    In a column of ``images`` that holds lists of them, only what most of its rows hold says something of its type; the
    rest does not fit it later.
    """
    types: dict[str, pa.DataType] = {}
    mixed: set[str] = set()
    of_images = {name: form for name in images if (form := _form_of_lists([row.get(name) for row in rows]))}
    for row in rows:
        for name, value in row.items():
            if (
                name in mixed
                or not _is_text(name)
                or (name in of_images and _form(value) not in (None, of_images[name]))
            ):
                continue
            try:
                types[name] = _unified(types.get(name, pa.null()), _kind(value))
            except _MixedError:
                if name in of_images:
                    continue  # as JSON text all lists of the column would be lost
                mixed.add(name)
                types[name] = pa.string()
    mixed |= {name for name, kind in types.items() if pa.types.is_null(kind) or _has_empty_object(kind)}
    return JsonSchema(
        types={name: pa.string() if name in mixed else _settled(kind) for name, kind in types.items()},
        mixed=frozenset(mixed),
    )


def _form_of_lists(values: Sequence[Any]) -> str | None:
    """What most of ``values`` are images by, where any is a list of them; None where there is no such list."""
    forms = Counter(form for value in values if (form := _form(value)) in ("text", "object"))
    listed = any(isinstance(value, list) and _form(value) in forms for value in values)
    return forms.most_common(1)[0][0] if listed else None


def _form(value: Any) -> str | None:
    """How a value, or all items of a list, could be images: by ``text`` (a path) or as an ``object``; ``none`` where
    they cannot, and None where nothing is said."""
    items = [item for item in (value if isinstance(value, list) else [value]) if item is not None]
    if not items:
        return None
    if all(isinstance(item, str) for item in items):
        return "text"
    parts = [item.get(part) for item in items if isinstance(item, dict) for part in ("bytes", "path")]
    objects = all(isinstance(item, dict) for item in items) and all(
        isinstance(part, (str, type(None))) for part in parts
    )
    return "object" if objects else "none"


def _kind(value: Any) -> pa.DataType:
    match value:
        case None:
            return pa.null()
        case bool():
            return pa.bool_()
        case int():
            if value not in _INT64:
                raise _MixedError
            return pa.int64()
        case float():
            return pa.null() if math.isnan(value) else pa.float64()
        case str():
            return pa.string()
        case list():
            kind = pa.null()
            for item in value:
                kind = _unified(kind, _kind(item))
            return pa.list_(kind)
        case _:
            if not all(map(_is_text, value)):
                raise _MixedError
            return pa.struct([(name, _kind(item)) for name, item in value.items()])


def _unified(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds values of both. Raises ``_MixedError``."""
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) or pa.types.is_list(other):
        items = (kind.value_type if pa.types.is_list(kind) else kind for kind in (one, other))
        return pa.list_(_unified(*items))
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            fields[field.name] = _unified(fields.get(field.name, pa.null()), field.type)
        if len(fields) <= MAX_FIELDS:
            return pa.struct(list(fields.items()))
    raise _MixedError


def _has_empty_object(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _has_empty_object(kind.value_type)
    return pa.types.is_struct(kind) and (kind.num_fields == 0 or any(_has_empty_object(field.type) for field in kind))


def _settled(kind: pa.DataType) -> pa.DataType:
    """The type with text where only nulls were seen."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_settled(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _settled(field.type)) for field in kind])
    return kind


def _conform(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [_conform(item, kind.value_type) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, float) and math.isnan(value):
        return value if pa.types.is_floating(kind) else None
    if pa.types.is_struct(kind) and isinstance(value, dict):
        names = {field.name for field in kind}
        if value.keys() <= names:
            return {field.name: _conform(value.get(field.name), field.type) for field in kind}
    if pa.types.is_string(kind) and isinstance(value, str):
        return _checked(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if pa.types.is_floating(kind) and number:
        return value
    if pa.types.is_integer(kind) and number and isinstance(value, int) and value in _INT64:
        return value
    if pa.types.is_boolean(kind) and isinstance(value, bool):
        return value
    raise MisfitError(f"{_shown(value)}, expected {kind}")


def _as_text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return _checked(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _checked(text: str) -> str:
    if not _is_text(text):
        raise MisfitError(f"{_shown(text)}, half of a surrogate pair, expected Unicode text")
    return text


def _is_text(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can escape and no encoding can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
