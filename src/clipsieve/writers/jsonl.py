"""JSON lines: a row a line, as the source wrote it where the source was JSON lines too.

A line is only written anew when scores join it or its list of images has become shorter; what else it holds is
kept. Cells without a JSON form are spelled as ``cells`` says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.core.contracts import LINE
from clipsieve.core.layout import Layout, LayoutKind
from clipsieve.core.storage import streamed
from clipsieve.writers.cells import dump, is_score, json_rows, parsed, plain


@dataclass(frozen=True, kw_only=True)
class JsonlWriter:
    """Writes caption and list rows as UTF-8 JSON lines."""

    suffix: ClassVar[str] = ".jsonl"
    needs_bytes: ClassVar[bool] = False
    layouts: ClassVar[tuple[LayoutKind, ...]] = ("captions", "lists")

    def write(self, batch: Batch, file: BinaryIO, name: str) -> None:
        """One line a row; ``name`` is not used."""
        file.writelines(line.encode() + b"\n" for line in _lines(batch.table, batch.layout))

    def join(self, parts: Sequence[Path], file: BinaryIO) -> None:
        """The lines of all files."""
        for part in parts:
            with streamed(part) as stored:
                shutil.copyfileobj(stored, file)


def _lines(table: pa.Table, layout: Layout) -> Iterator[str]:
    if LINE not in table.column_names:
        yield from map(dump, json_rows(table))
        return
    scores = [field.name for field in table.schema if is_score(field)]
    images = layout.image if layout.kind == "lists" else None
    fresh = json_rows(table.select([*scores, *([images] if images else [])]))
    for line, cells in zip(table.column(LINE).to_pylist(), fresh, strict=True):
        yield _updated(line, cells, images) if cells else line


def _updated(line: str, cells: Mapping[str, Any], images: str | None) -> str:
    """The line with ``cells`` in it, unless they are no news: a list of ``images`` only ever gets shorter."""
    row = parsed(line)
    if row is None:
        return line  # no object to update: the row failed, and stays because ``on_error`` says so
    news = {name: cell for name, cell in cells.items() if name != images or _count(cell) != _count(row.get(name))}
    return dump(plain(row | news)) if news else line


def _count(cell: Any) -> int:
    """Images in the cell of a list column, where a single image may stand without a list."""
    return len(cell) if isinstance(cell, list) else int(cell is not None)
