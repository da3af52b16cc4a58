"""CSV: a header and a row a line, strings as they were, nested cells as JSON, bytes as data URIs, null as nothing.

Lists of images are refused: no reader of CSV knows them from text.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.batch import Batch
from clipsieve.core.layout import LayoutKind
from clipsieve.core.storage import streamed
from clipsieve.writers.cells import dump, json_column, visible

# The standard library's writer leaves a lone carriage return bare when lines end in \n, which no reader forgives.
_QUOTED = re.compile('[",\r\n]')


@dataclass(frozen=True, kw_only=True)
class CsvWriter:
    """Writes caption rows as UTF-8 CSV with minimal quoting; lines end in ``\\n``."""

    suffix: ClassVar[str] = ".csv"
    needs_bytes: ClassVar[bool] = False
    layouts: ClassVar[tuple[LayoutKind, ...]] = ("captions",)

    def write(self, batch: Batch, file: BinaryIO, name: str) -> None:
        """A header and one line a row; ``name`` is not used."""
        table = visible(batch.table)
        file.write(_line(table.column_names))
        columns = [_texts(column) for column in table.columns]
        file.writelines(_line(cells) for cells in zip(*columns, strict=True))

    def join(self, parts: Sequence[Path], file: BinaryIO) -> None:
        """The header once, then the lines of all files."""
        for number, part in enumerate(parts):
            with streamed(part) as stored:
                header = _line(next(csv.reader(io.TextIOWrapper(stored, encoding="utf-8", newline=""))))
            with streamed(part) as stored:
                stored.seek(len(header) if number else 0)
                shutil.copyfileobj(stored, file)


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    """The cells as text; a NaN is as missing as a null."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    if pa.types.is_primitive(kind):
        return list(column.cast(pa.string()).to_pylist())
    cells = json_column(column)
    return [dump(cell) if isinstance(cell, (list, dict)) else cell if cell is None else str(cell) for cell in cells]


def _line(cells: Iterable[str | None]) -> bytes:
    text = ",".join(_field(cell or "") for cell in cells)
    return (text or '""').encode() + b"\n"  # a bare empty line would not be a row


def _field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
