"""What every reader is given (``Source``) and what it promises beyond ``core.contracts.Reader``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import pyarrow as pa

from clipsieve.core.contracts import Reader, SourceFile
from clipsieve.core.layout import INTERLEAVED_SCHEMA, InvalidRows, Layout, LayoutKind
from clipsieve.core.urls import FetchPolicy
from clipsieve.errors import ColumnError, SourceError
from clipsieve.readers.infer import Columns, check_column, in_words, infer_layout
from clipsieve.readers.shards import Limits
from clipsieve.readers.tables import interleaved_schema


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files to read, in order, and what the user has said about them.

    ``folders`` holds the folders among the paths that were asked for; ``name`` is how messages call the source.
    ``fields`` and ``types`` are those of documents' columns, see ``open_source``; ``fetch`` is as in ``Layout``.
    """

    name: str
    files: tuple[SourceFile, ...]
    folders: tuple[str, ...] = ()
    columns: Columns = Columns()
    layout: LayoutKind | None = None
    root: str | None = None
    invalid_rows: InvalidRows = "keep"
    fields: tuple[str, ...] | None = None
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    limits: Limits = Limits()
    fetch: FetchPolicy | None = None

    @property
    def paths(self) -> list[str]:
        """Those of the files."""
        return [file.path for file in self.files]

    def infer(self, schema: pa.Schema) -> Layout:
        """The layout of rows with these columns. Raises ``ColumnError``."""
        layout = infer_layout(schema, self.columns, self.layout, self.root, self.name)
        own = {"fields": self.fields is not None, "types": self.types, "invalid_rows": self.invalid_rows == "drop"}
        if layout.kind != "interleaved" and (said := [name for name, value in own.items() if value]):
            raise ColumnError(f"{self.name}: {', '.join(said)} of documents only, and these are {layout.kind} rows")
        return replace(layout, invalid_rows=self.invalid_rows, fetch=self.fetch)

    def documents(self, schema: pa.Schema) -> pa.Schema:
        """The columns of interleaved documents as they are read, of a source with those of ``schema``.

        Raises ``ColumnError`` for a field that the source does not have.
        """
        if self.fields is not None:
            for name in self.fields:
                check_column(name, schema, self.name)
            schema = pa.schema(
                [column for column in schema if column.name in (*INTERLEAVED_SCHEMA.names, *self.fields)]
            )
        for name, kind in self.types.items():
            if name in INTERLEAVED_SCHEMA.names:
                raise ColumnError(f"{self.name}: column {name!r} has a type that every document shares")
            place = schema.get_field_index(name)
            schema = schema.append(pa.field(name, kind)) if place < 0 else schema.set(place, pa.field(name, kind))
        return interleaved_schema(schema)

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
