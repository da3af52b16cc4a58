"""Reads CSV and TSV: every cell a string exactly as written, a row with too many or too few cells is an error row.

A shard is a byte range that ends where a record does: quoted cells may hold line breaks. Quotes are counted in bulk;
only a file with stray quotes is gone through record by record.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.core.contracts import Piece, Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.spread import Spread, in_threads
from clipsieve.errors import ColumnError, SourceError
from clipsieve.readers.files import CHUNK, Cursor, LineNumbers, extension, head, open_file, reading
from clipsieve.readers.shards import Cut, Items, check_sizes, grouped, items, shards
from clipsieve.readers.source import Source

_BOM = b"\xef\xbb\xbf"
_LARGEST_HEADER = 2**20
_LARGEST_CELL = 2**31 - 1
_RECORDS_AT_ONCE = 2**16


class CommaSeparated:
    """CSV and TSV with a header row in UTF-8. Blank lines are no rows; an empty cell is an empty string."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # The module's own limit of 131,072 characters refuses images as data URIs; it can only be set for all.
        csv.field_size_limit(_LARGEST_CELL)
        first = source.files[0].path
        self._names = _header(first)[0]
        self._header: tuple[str, list[str], int] = ("", [], 0)
        self.layout = source.infer_rows(pa.schema([(name, pa.string()) for name in self._names]))
        self._cursor = Cursor()
        self._line_numbers = LineNumbers()

    def describe(self) -> str:
        """One line: files, layout and columns."""
        tabs = _delimiter(self._source.files[0].path) == "\t"
        return self._source.describe("TSV" if tabs else "CSV", self.layout)

    def files(self) -> Sequence[SourceFile]:
        """The files in reading order."""
        return self._source.files

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
        """Ranges of bytes (of the decompressed file), behind the header, that end at the ends of records."""
        return shards(spread(self._cut, self._source.paths), self._source.limits)

    def _cut(self, path: str) -> Cut:
        _, start = self._checked_header(path)
        with open_file(path) as file, reading(path):
            file.seek(start)
            groups = grouped(_record_items(file, _delimiter(path)), self._source.limits)
        check_sizes(path, groups, "record (is a quote never closed?)")
        return Cut(path=path, start=start, groups=groups)

    def read(self, shard: Shard) -> Rows:
        """The records of a shard; errors name the line on which the record begins."""
        tables: list[pa.Table] = []
        origins: list[tuple[int, str]] = []
        errors: dict[int, str] = {}
        row = 0
        for piece in shard.pieces:
            table, wrong = self._read_piece(piece)
            origins.append((row, piece.path))
            errors |= {row + number: error for number, error in wrong.items()}
            tables.append(table)
            row += table.num_rows
        return Rows(table=pa.concat_tables(tables), origins=tuple(origins), errors=errors)

    def count(self, spread: Spread = in_threads) -> SourceCounts:
        """Counts records by streaming each file as a whole; every row of CSV has one image."""
        return SourceCounts.total(spread(_count, self._source.paths))

    def _read_piece(self, piece: Piece) -> tuple[pa.Table, dict[int, str]]:
        names, _ = self._checked_header(piece.path)
        data = self._cursor.read(piece.path, piece.start, piece.stop)
        try:
            text, damaged = data.decode(), False
        except UnicodeDecodeError:
            text, damaged = data.decode(errors="surrogateescape"), True
        rows: list[list[str | None]] = []
        errors: dict[int, str] = {}
        for line, cells, error in _records(io.StringIO(text, newline=""), _delimiter(piece.path)):
            reason = error or _fault(cells, len(names), damaged)
            if reason:
                first = self._line_numbers.at(piece.path, piece.start)
                errors[len(rows)] = f"malformed CSV at line {first + line}: {reason}"
            rows.append([None] * len(names) if reason else list(cells))
        if rows and '"' in text and _unclosed(text, line, _delimiter(piece.path)):
            first = self._line_numbers.at(piece.path, piece.start)
            errors[len(rows) - 1] = f"malformed CSV at line {first + line}: a quote that is never closed"
            rows[-1] = [None] * len(names)
        columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
        return pa.table({name: pa.array(columns[name], pa.string()) for name in self._names}), errors

    def _checked_header(self, path: str) -> tuple[list[str], int]:
        """Column names of a file and where its rows begin. Raises ``SourceError`` when they are not the first's."""
        known, names, start = self._header
        if known != path:
            names, start = _header(path)
            if set(names) != set(self._names):
                different = ", ".join(sorted(set(names) ^ set(self._names)))
                raise SourceError(
                    f"{path}: other columns than {self._source.files[0].path} ({different}); read them separately"
                )
            self._header = (path, names, start)
        return names, start


def _count(path: str) -> SourceCounts:
    with open_file(path) as binary, reading(path):
        text = io.TextIOWrapper(binary, "utf-8", errors="surrogateescape", newline="")
        rows = sum(1 for _ in islice(_records(text, _delimiter(path)), 1, None))
    return SourceCounts(samples=rows, images=rows)


def _delimiter(path: str) -> str:
    return "\t" if extension(path) == ".tsv" else ","


def _header(path: str) -> tuple[list[str], int]:
    """The names in the header row and the bytes it takes."""
    data = head(path, _LARGEST_HEADER)
    mark = len(_BOM) if data.startswith(_BOM) else 0
    text = io.StringIO(data[mark:].decode(errors="surrogateescape"), newline="")
    names = next((cells for _, cells, _ in _records(iter(text.readline, ""), _delimiter(path))), None)
    if not names:
        raise SourceError(f"{path}: has no header; CSV needs a first row with the names of the columns")
    taken = text.getvalue()[: text.tell()].encode(errors="surrogateescape")
    try:
        taken.decode()
    except UnicodeDecodeError:
        raise SourceError(f"{path}: its header is not UTF-8; convert the file, for example with iconv") from None
    if any("\0" in name for name in names):
        raise SourceError(f"{path}: its header holds zero bytes: not a text file, or not in UTF-8")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ColumnError(f"{path}: column {twice[0]!r} appears twice in the header; rename one")
    return names, mark + len(taken)


def _records(text: Any, delimiter: str) -> Iterator[tuple[int, list[str], str | None]]:
    """Records that are not blank: the line on which each begins, from 0, its cells, and why it does not parse."""
    reader = csv.reader(text, delimiter=delimiter)
    while True:
        line = reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as failure:
            yield line, [], str(failure)
            continue
        if cells:
            yield line, cells, None


def _unclosed(text: str, line: int, delimiter: str) -> bool:
    """Whether the last record, which begins at ``line``, ends within quotes and so has taken in all lines behind it."""
    record = list(islice(io.StringIO(text, newline=""), line, None))
    try:
        for _ in csv.reader(record, delimiter=delimiter, strict=True):
            pass
    except csv.Error as failure:
        return "unexpected end" in str(failure)
    return False


def _fault(cells: Sequence[str], columns: int, damaged: bool) -> str | None:
    """Why a record is not a row; only ``damaged`` text has to be searched for bytes that were no UTF-8."""
    if len(cells) != columns:
        return f"{len(cells)} cells, the header has {columns}"
    if damaged and any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
        return "not UTF-8"
    return None


def _record_items(file: BinaryIO, delimiter: str) -> Iterator[Items]:
    """Every record, in chunks; blank lines before it are part of it."""
    stop = file.tell()
    for stops in _ends_by_quotes(file, ord(delimiter)):
        if stops is None:
            file.seek(stop)
            yield from _items_one_by_one(file, delimiter)
            return
        yield items(stops, stop)
        stop = int(stops[-1]) if len(stops) else stop


def _ends_by_quotes(file: BinaryIO, delimiter: int) -> Iterator[npt.NDArray[np.int64] | None]:
    """Where records end, chunk by chunk: at line breaks with an even number of quotes before them.

    None, and no more, when a quote stands where it neither opens nor closes a cell.
    """
    position, line_start, quoted = file.tell(), file.tell(), 0
    before = b"\n"
    pending = b""
    while True:
        chunk = file.read(CHUNK)
        # The last byte waits for the one behind it, by which a closing quote is known.
        whole = before + pending + chunk + (b"" if chunk else b"\n")
        data = np.frombuffer(whole, dtype=np.uint8)
        body = data[1:-1]
        quotes = np.flatnonzero(body == ord('"'))
        opens = (np.arange(len(quotes)) + quoted) % 2 == 0
        neighbours = np.where(opens, data[quotes], data[quotes + 2])
        if not np.isin(neighbours, (delimiter, ord('"'), ord("\n"), ord("\r"))).all():
            yield None
            return
        newlines = np.flatnonzero(body == ord("\n"))
        newlines = newlines[(np.searchsorted(quotes, newlines) + quoted) % 2 == 0]
        ends = newlines + position + 1
        returned = data[newlines] == ord("\r")
        stops = ends[np.diff(ends, prepend=line_start) > 1 + returned]
        if not chunk:
            if position + len(body) > (int(ends[-1]) if len(ends) else line_start):
                stops = np.append(stops, position + len(body))
            yield stops
            return
        yield stops
        line_start = int(ends[-1]) if len(ends) else line_start
        quoted = (quoted + len(quotes)) % 2
        position += len(body)
        before, pending = whole[-2:-1], whole[-1:]


def _items_one_by_one(file: BinaryIO, delimiter: str) -> Iterator[Items]:
    stop = position = file.tell()

    def lines() -> Iterator[str]:
        nonlocal position
        for line in file:
            position += len(line)
            yield line.decode("latin-1")  # delimiters and quotes are the same bytes in UTF-8

    records = _records(lines(), delimiter)
    while chunk := [position for _ in islice(records, _RECORDS_AT_ONCE)]:
        stops = np.array(chunk, dtype=np.int64)
        yield items(stops, stop)
        stop = chunk[-1]
