"""Infers the layout of rows from the names and types of their columns, and says it in a few words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from clipsieve.core.layout import Layout, LayoutKind
from clipsieve.errors import ColumnError

IMAGE_NAMES = ("image", "image_path", "img", "images", "file_name", "filename", "path", "url")
"""The usual names, the most telling first: a row with ``images`` and ``url`` has the page's address in the latter."""

TEXT_NAMES = ("caption", "text", "TEXT", "captions", "texts")
ID_NAMES = ("id", "sample_id", "key", "__key__", "uid")
_INTERLEAVED_NAMES = ("sample_id", "position", "modality")
_NAMES_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of caption and list rows; what is None is inferred. ``text=()`` means no text."""

    image: str | None = None
    text: tuple[str, ...] | None = None
    id: str | None = None


def infer_layout(schema: pa.Schema, columns: Columns, kind: LayoutKind | None, root: str | None, source: str) -> Layout:
    """The layout of rows with these columns; ``kind`` and ``columns`` are what the user has said.

    Raises ``ColumnError`` when a said column is missing or no column can hold the image.
    """
    if kind == "interleaved" or (kind is None and columns == Columns() and set(_INTERLEAVED_NAMES) <= {*schema.names}):
        for name in _INTERLEAVED_NAMES:
            check_column(name, schema, source)
        if columns != Columns():
            raise ColumnError(f"{source}: interleaved rows have fixed column names; leave the columns out")
        return Layout(
            kind="interleaved", image="binary_content", texts=("text_content",), sample_id="sample_id", root=root
        )
    for said in (columns.image, *(columns.text or ()), columns.id):
        if said is not None:
            check_column(said, schema, source)
    image = columns.image or _first(schema, IMAGE_NAMES, _may_hold_images)
    if image is None:
        raise ColumnError(f"{source}: {_no_image_column(schema)}")
    listed = is_list(schema.field(image).type)
    if kind == "captions" and listed:
        raise ColumnError(f"{source}: column {image!r} holds lists of images; say layout lists, or another column")
    text = _first(schema, TEXT_NAMES, _may_hold_text) if columns.text is None else None
    return Layout(
        kind=kind or ("lists" if listed else "captions"),
        image=image,
        texts=((text,) if text else ()) if columns.text is None else columns.text,
        sample_id=columns.id or _first(schema, ID_NAMES, _may_be_id),
        root=root,
    )


def check_column(name: str, schema: pa.Schema, source: str) -> None:
    """Raises ``ColumnError`` with the nearest name when the source has no such column."""
    if name not in schema.names:
        near = difflib.get_close_matches(name, schema.names, n=1)
        hint = f"did you mean {near[0]!r}? There" if near else "there"
        raise ColumnError(f"{source}: no column {name!r}; {hint} are {_names(schema)}")


def _no_image_column(schema: pa.Schema) -> str:
    if not schema.names:
        return "it has no columns"
    unfit = next((name for name in IMAGE_NAMES if name in schema.names), None)
    if unfit:
        kind = schema.field(unfit).type
        return f"column {unfit!r} holds {kind}, not images; say which does (there are {_names(schema)})"
    return f"no image column (one of {', '.join(IMAGE_NAMES)}); say which of {_names(schema)} it is"


def _shown(name: str) -> str:
    name = name if name.isprintable() else repr(name)
    return name if len(name) <= 60 else f"{name[:60]}..."


def _names(schema: pa.Schema) -> str:
    shown = [_shown(name) for name in schema.names[:_NAMES_SHOWN]]
    more = len(schema.names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "") or "none"


def _first(schema: pa.Schema, names: Sequence[str], fits: Callable[[pa.DataType], bool]) -> str | None:
    return next((name for name in names if name in schema.names and fits(schema.field(name).type)), None)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of that type holds lists, of any or one length."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _leaf(kind: pa.DataType) -> pa.DataType:
    if is_list(kind):
        kind = kind.value_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _may_hold_images(kind: pa.DataType) -> bool:
    leaf = _leaf(kind)
    in_struct = pa.types.is_struct(leaf) and {"bytes", "path"} & {field.name for field in leaf}
    return bool(_is_text(leaf) or _is_bytes(leaf) or in_struct)


def _may_hold_text(kind: pa.DataType) -> bool:
    return _is_text(_leaf(kind))


def _may_be_id(kind: pa.DataType) -> bool:
    return _is_text(_leaf(kind)) or bool(pa.types.is_integer(kind))


def in_words(layout: Layout) -> str:
    """``captions layout, image column "image", text column "caption", id none``."""
    if layout.kind == "interleaved":
        return "interleaved layout"
    plural = "s" if len(layout.texts) > 1 else ""
    texts = ", ".join(f'"{name}"' for name in layout.texts) or "none"
    return (
        f'{layout.kind} layout, image column "{layout.image}", text column{plural} {texts}, '
        f"id {_quoted(layout.sample_id)}"
    )


def _quoted(name: str | None) -> str:
    return "none" if name is None else f'column "{name}"'
