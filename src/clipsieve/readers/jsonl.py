"""Reads JSON lines: a shard is a byte range moved to line ends, a line that does not parse is that row's error.

Columns are typed once for the source, by rows from 16 places spread over it. The hidden column ``LINE`` holds
each line as it was, so that what Arrow types cannot say (number spelling, key order) can be written back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.json

from clipsieve.core.contracts import LINE, Piece, Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.spread import Spread, in_threads
from clipsieve.errors import ColumnError, SourceError
from clipsieve.readers.files import CHUNK, Cursor, LineNumbers, compression, open_file, reading, total_size
from clipsieve.readers.infer import IMAGE_NAMES
from clipsieve.readers.jsontypes import JsonSchema, MisfitError, infer
from clipsieve.readers.shards import Cut, Items, check_sizes, grouped, items, shards
from clipsieve.readers.source import Source

SAMPLE_PLACES, SAMPLE_BYTES = 16, 256 * 2**10
"""Where types are inferred from: so many places, so many bytes each; some 10,000 rows of usual captions."""

_LONGEST_LINE = 64 * 2**20
"""Bytes read to the end of a line when sampling: a large file of one line is no JSON lines."""

_BOM = b"\xef\xbb\xbf"

_JSON_NAMES = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "true or false"}
_JSON_NAMES[type(None)] = "null"


class JsonLines:
    """JSON lines, one object a row. Blank lines are no rows; CRLF and a byte order mark are accepted."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._columns = _infer_columns(source)
        self.layout = source.infer_rows(self._columns.arrow)
        self._cursor = Cursor()
        self._line_numbers = LineNumbers()

    def describe(self) -> str:
        """One line: files, layout and columns."""
        return self._source.describe("JSON lines", self.layout)

    def files(self) -> Sequence[SourceFile]:
        """The files in reading order."""
        return self._source.files

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
        """Ranges of bytes (of the decompressed file) that end at line ends."""
        return shards(spread(self._cut, self._source.paths), self._source.limits)

    def _cut(self, path: str) -> Cut:
        with open_file(path) as file, reading(path):
            groups = grouped(_line_items(file), self._source.limits)
        check_sizes(path, groups, "line")
        return Cut(path=path, groups=groups)

    def read(self, shard: Shard) -> Rows:
        """The lines of a shard; errors name the line by its number in its file."""
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
        """Counts lines that are not blank; for lists the images of each by parsing it on its own."""
        return SourceCounts.total(spread(self._count, self._source.paths))

    def _count(self, path: str) -> SourceCounts:
        samples = images = 0
        for line in _lines(path):
            samples += 1
            images += self._images(line) if self.layout.kind == "lists" else 1
        return SourceCounts(samples=samples, images=images)

    def _images(self, line: bytes) -> int:
        try:
            cell = self._cells(line)[self.layout.image]
        except _LineError:
            return 1  # what cannot be parsed counts as one image that cannot be read
        return len(cell) if isinstance(cell, list) else int(cell is not None)

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._columns.arrow.append(pa.field(LINE, pa.string()))

    def _read_piece(self, piece: Piece) -> tuple[pa.Table, dict[int, str]]:
        data = self._cursor.read(piece.path, piece.start, piece.stop)
        if piece.start == 0:
            data = data.removeprefix(_BOM)
        numbered = [(number, line) for number, line in enumerate(data.split(b"\n")) if not line.isspace() and line]
        lines = [line for _, line in numbered]
        text = pa.array([line.decode(errors="replace") for line in lines], pa.string())
        table = self._quick(lines)
        errors: dict[int, str] = {}
        if table is None:
            cells, reasons = self._line_by_line(lines)
            table = pa.Table.from_pylist(cells, schema=self._columns.arrow)
            for row, reason in reasons.items():
                first = self._line_numbers.at(piece.path, piece.start)
                errors[row] = f"{reason.what} at line {first + numbered[row][0]}: {reason}"
        return table.append_column(self._schema.field(LINE), text), errors

    def _quick(self, lines: Sequence[bytes]) -> pa.Table | None:
        """All lines at once by Arrow's parser, twenty times as fast; None when it finds anything to object to."""
        # Arrow parses a stream of objects, whatever the line breaks. Lines that all begin and end with braces are
        # whole objects each as soon as there are as many objects as lines.
        if (
            self._columns.mixed
            or not lines
            or not all(line[:1] == b"{" and line.rstrip()[-1:] == b"}" for line in lines)
        ):
            return None
        data = b"\n".join(lines)
        try:
            data.decode()
            table = pyarrow.json.read_json(
                pa.BufferReader(data),
                read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pyarrow.json.ParseOptions(
                    explicit_schema=self._columns.arrow, unexpected_field_behavior="error"
                ),
            )
        except (pa.ArrowException, UnicodeDecodeError):
            return None
        return table if table.num_rows == len(lines) else None

    def _line_by_line(self, lines: Sequence[bytes]) -> tuple[list[dict[str, Any]], dict[int, _LineError]]:
        cells: list[dict[str, Any]] = []
        errors: dict[int, _LineError] = {}
        for row, line in enumerate(lines):
            try:
                cells.append(self._cells(line))
            except _LineError as failure:
                cells.append({})
                errors[row] = failure
        return cells, errors

    def _cells(self, line: bytes) -> dict[str, Any]:
        try:
            return self._columns.cells(_parsed(line))
        except MisfitError as misfit:
            raise _LineError("unexpected value", str(misfit)) from None


class _LineError(Exception):
    """Why a line is not a row; ``what`` names the kind of fault."""

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(detail)
        self.what = what


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as failure:
        raise _LineError(
            "not UTF-8", f"byte {failure.object[failure.start]:#04x} in column {failure.start + 1}"
        ) from None
    except (ValueError, RecursionError) as failure:
        raise _LineError("malformed JSON", str(failure)) from None
    if not isinstance(value, dict):
        raise _LineError("malformed JSON", f"{_JSON_NAMES[type(value)]} in place of an object")
    return value


def _infer_columns(source: Source) -> JsonSchema:
    rows: list[dict[str, Any]] = []
    first_error: str | None = None
    for path, line in _sampled_lines(source.files):
        try:
            rows.append(_parsed(line))
        except _LineError as failure:
            first_error = first_error or f"{path}: {failure.what}: {failure}"
            if not rows and line.lstrip().startswith(b"["):
                first_error = f"{path}: a JSON array (jq -c '.[]' makes it lines)"
    if not rows:
        if first_error:
            raise SourceError(f'{first_error}; a line should be one JSON object, such as {{"image": "a.jpg"}}')
        raise SourceError(f"{source.name}: holds no rows")
    columns = infer(rows, [source.columns.image] if source.columns.image else IMAGE_NAMES)
    if LINE in columns.types:
        raise ColumnError(f"{source.name}: the column name {LINE!r} is taken by Clipsieve; rename it")
    return columns


def _sampled_lines(files: Sequence[SourceFile]) -> Iterator[tuple[str, bytes]]:
    for (path, offset), size in _sample_places(files).items():
        with open_file(path) as file, reading(path):
            if offset:
                file.seek(offset - 1)
                file.readline(_LONGEST_LINE)  # the line that began before belongs to the place before
            data = file.read(max(0, size - (file.tell() - offset))) + file.readline(_LONGEST_LINE)
        for line in (data.removeprefix(_BOM) if offset == 0 else data).split(b"\n"):
            if line.strip():
                yield path, line


def _sample_places(files: Sequence[SourceFile]) -> dict[tuple[str, int], int]:
    """Path and offset to bytes; a compressed file is read from its beginning, for as much and more."""
    ends = np.cumsum([file.size for file in files])
    total = total_size(files)
    places: dict[tuple[str, int], int] = {}
    starts = range(0, total, max(SAMPLE_BYTES, -(-total // SAMPLE_PLACES)))
    for at in starts:
        until = min(total, at + SAMPLE_BYTES)
        while at < until:
            number = int(np.searchsorted(ends, at, side="right"))
            file, end = files[number], int(ends[number])
            if compression(file.path):
                places[file.path, 0] = places.get((file.path, 0), 0) + SAMPLE_BYTES * SAMPLE_PLACES // len(starts)
            else:
                places[file.path, at - end + file.size] = min(until, end) - at
            at = end
    return places


def _line_items(file: BinaryIO) -> Iterator[Items]:
    """Every line that is not blank, in chunks; blank ones before it are part of it."""
    position = stop = 0
    blank_so_far = True
    while chunk := file.read(CHUNK):
        data = np.frombuffer(chunk, dtype=np.uint8)
        newlines = np.flatnonzero(data == ord("\n"))
        starts = np.concatenate([[0], newlines + 1])
        blank = np.zeros(len(newlines), dtype=bool)
        for line in np.flatnonzero(data[starts[:-1]] <= ord(" ")).tolist():
            blank[line] = chunk[starts[line] : newlines[line] + 1].isspace() and (line > 0 or blank_so_far)
        stops = newlines[~blank] + 1 + position
        yield items(stops, stop)
        stop = int(stops[-1]) if len(stops) else stop
        open_line = chunk[starts[-1] :]
        blank_so_far = (len(newlines) > 0 or blank_so_far) and (not open_line or open_line.isspace())
        position += len(chunk)
    if not blank_so_far:
        yield items(np.array([position]), stop)


def _lines(path: str) -> Iterator[bytes]:
    """All lines that are not blank, one by one."""
    with open_file(path) as file, reading(path):
        first = file.readline().removeprefix(_BOM)
        if first.strip():
            yield first
        for line in file:
            if line.strip():
                yield line
