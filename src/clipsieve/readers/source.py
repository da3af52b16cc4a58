"""What every reader is given (``Source``) and what it promises beyond ``core.contracts.Reader``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa

from clipsieve.core.contracts import Reader, SourceFile
from clipsieve.core.layout import InvalidRows, Layout, LayoutKind
from clipsieve.errors import SourceError
from clipsieve.readers.infer import Columns, in_words, infer_layout
from clipsieve.readers.shards import Limits


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files to read, in order, and what the user has said about them.

    ``folders`` holds the folders among the paths that were asked for; ``name`` is how messages call the source.
    """

    name: str
    files: tuple[SourceFile, ...]
    folders: tuple[str, ...] = ()
    columns: Columns = Columns()
    layout: LayoutKind | None = None
    root: str | None = None
    invalid_rows: InvalidRows = "keep"
    limits: Limits = Limits()

    def infer(self, schema: pa.Schema) -> Layout:
        """The layout of rows with these columns. Raises ``ColumnError``."""
        layout = infer_layout(schema, self.columns, self.layout, self.root, self.name)
        return replace(layout, invalid_rows=self.invalid_rows)

    def infer_rows(self, schema: pa.Schema) -> Layout:
        """The same for a format that cannot hold interleaved documents. Raises ``SourceError`` when it does."""
        layout = self.infer(schema)
        if layout.kind == "interleaved":
            raise SourceError(f"{self.name}: interleaved documents are read from Parquet and WebDataset; convert it")
        return layout

    def describe(self, what: str, layout: Layout) -> str:
        """``captions.jsonl: 1 file, JSON lines, captions layout, ...``."""
        count = len(self.files)
        return f"{self.name}: {count:,} file{'s' if count != 1 else ''}, {what}, {in_words(layout)}"


class OpenedSource(Reader, Protocol):
    """A reader that can say what it has inferred."""

    def describe(self) -> str:
        """One line: files, format, layout and columns."""
        ...
