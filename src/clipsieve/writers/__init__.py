"""The writers: whole samples into one file, in the format that ``write`` names."""

from __future__ import annotations

from collections.abc import Mapping

from clipsieve.core.contracts import Writer
from clipsieve.core.layout import LayoutKind
from clipsieve.errors import RecipeError
from clipsieve.writers.csv import CsvWriter
from clipsieve.writers.jsonl import JsonlWriter
from clipsieve.writers.parquet import ParquetWriter
from clipsieve.writers.webdataset import WebDatasetWriter

__all__ = ["WRITERS", "CsvWriter", "JsonlWriter", "ParquetWriter", "WebDatasetWriter", "writer"]

WRITERS: Mapping[str, type[Writer]] = {
    "csv": CsvWriter,
    "jsonl": JsonlWriter,
    "parquet": ParquetWriter,
    "webdataset": WebDatasetWriter,
}
"""Format to writer; a new format is one file and one line here."""


def writer(name: str, layout: LayoutKind) -> Writer:
    """The writer of the format ``name``. Raises ``RecipeError`` when it cannot hold the layout."""
    able = [other for other, candidate in WRITERS.items() if layout in candidate.layouts]
    if name not in able:
        raise RecipeError(f"{layout} samples cannot be written as {name}; write {' or '.join(able)}")
    return WRITERS[name]()
