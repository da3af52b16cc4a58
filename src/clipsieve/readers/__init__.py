"""The readers: files of a format to shards of whole samples, and a shard to rows.

``open_source`` finds the files, infers what was not said and returns the reader; its ``describe`` says in one line
what was inferred.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from clipsieve.core.layout import InvalidRows, LayoutKind
from clipsieve.core.urls import FetchPolicy
from clipsieve.errors import SourceError, UsageError
from clipsieve.readers.csv import CommaSeparated
from clipsieve.readers.files import Listing, extension, find
from clipsieve.readers.folder import ImageFolder
from clipsieve.readers.images import IMAGE_EXTENSIONS
from clipsieve.readers.infer import Columns
from clipsieve.readers.jsonl import JsonLines
from clipsieve.readers.parquet import Parquet
from clipsieve.readers.shards import Limits
from clipsieve.readers.source import OpenedSource, Source
from clipsieve.readers.webdataset import WebDataset

__all__ = ["FORMATS", "Columns", "Format", "OpenedSource", "open_source"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format: its name in recipes, its reader and the extensions by which it is known.

    ``in_folders`` are those that make a folder a folder of data files: a ``.json`` among images is usually
    something else.
    """

    name: str
    reader: Callable[[Source], OpenedSource]
    extensions: tuple[str, ...]
    in_folders: tuple[str, ...]


FORMATS = (
    Format(
        name="jsonl",
        reader=JsonLines,
        extensions=(".jsonl", ".ndjson", ".json"),
        in_folders=(".jsonl", ".ndjson"),
    ),
    Format(name="csv", reader=CommaSeparated, extensions=(".csv", ".tsv"), in_folders=(".csv", ".tsv")),
    Format(name="parquet", reader=Parquet, extensions=(".parquet", ".pq"), in_folders=(".parquet", ".pq")),
    Format(name="webdataset", reader=WebDataset, extensions=(".tar",), in_folders=(".tar",)),
    Format(name="folder", reader=ImageFolder, extensions=(), in_folders=()),
)
"""Every format; a new one is one file and one line here. ``.gz`` and ``.zst`` may follow an extension."""


def open_source(
    path: str | Sequence[str],
    *,
    format: str | None = None,
    layout: LayoutKind | None = None,
    columns: Columns | None = None,
    root: str | None = None,
    invalid_rows: InvalidRows = "keep",
    fields: Sequence[str] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
    shard_rows: int = 1024,
    shard_bytes: int = 64 * 2**20,
    fetch: FetchPolicy | None = None,
) -> OpenedSource:
    """Opens a file, brace glob, glob or folder, or several, anywhere that fsspec reaches.

    Files are read in the order of ``path``, those of a glob or folder in the order of their names, none twice.
    ``root`` is the folder of relative image paths, by default that of the file that names them; ``invalid_rows`` and
    ``fetch`` as in ``Layout``. Of documents ``fields`` are the columns to pass through beside those of
    ``INTERLEAVED_SCHEMA`` (None: all), and ``types`` those of some columns, null where the source lacks one. A shard
    holds at most ``shard_rows`` rows and about ``shard_bytes`` bytes, unless a single sample is larger.

    Raises ``SourceError`` for what cannot be found or read, ``ColumnError`` for columns that are not there and
    ``UsageError`` for an unknown format.
    """
    paths = [path] if isinstance(path, str) else list(path)
    if not paths:
        raise UsageError("nothing to read: give a path")
    listings = [find(one) for one in paths]
    chosen = _said(format) if format else _inferred(listings)
    found = {
        file.path: file
        for listing in listings
        for file in listing.files
        if not chosen.extensions or listing.folder is None or extension(file.path) in _endings(chosen, format)
    }
    name = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if not found and chosen.extensions:
        raise SourceError(f"{name}: no {chosen.name} files in it ({', '.join(chosen.extensions)})")
    folders = [listing.folder for listing in listings if listing.folder is not None]
    return chosen.reader(
        Source(
            name=name,
            files=tuple(found.values()),
            folders=tuple(folder for folder in dict.fromkeys(folders) if not _inside(folder, folders)),
            columns=columns or Columns(),
            layout=layout,
            root=root,
            invalid_rows=invalid_rows,
            fields=None if fields is None else tuple(fields),
            types=types or {},
            limits=Limits(rows=shard_rows, bytes=shard_bytes),
            fetch=fetch,
        )
    )


def _said(name: str) -> Format:
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    names = [candidate.name for candidate in FORMATS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    raise UsageError(f"unknown format {name!r}; {hint}")


def _endings(chosen: Format, said: str | None) -> tuple[str, ...]:
    """The extensions that count in a folder; a format that was said may claim all of its own."""
    return chosen.extensions if said else chosen.in_folders


def _inferred(listings: Sequence[Listing]) -> Format:
    """The one format of all files; a folder without data files is a folder of images."""
    found: dict[str, tuple[Format, str]] = {}
    for listing in listings:
        for file in listing.files:
            known = _format_of(file.path, in_folder=listing.folder is not None)
            if known:
                found.setdefault(known.name, (known, file.path))
    if len(found) > 1:
        examples = " and ".join(example for _, example in found.values())
        raise SourceError(f"{listings[0].path}: files of several formats ({examples}); give --format")
    return next(iter(found.values()))[0] if found else _said("folder")


def _format_of(path: str, *, in_folder: bool) -> Format | None:
    """The format of a file by its extension; None for what may lie in a folder of images."""
    ending = extension(path)
    for candidate in FORMATS:
        if ending in (candidate.in_folders if in_folder else candidate.extensions):
            return candidate
    if in_folder:
        return None
    if ending in IMAGE_EXTENSIONS:
        raise SourceError(f"{path}: an image; give the folder that holds the images")
    known = [ending for candidate in FORMATS for ending in candidate.extensions]
    raise SourceError(f"{path}: unknown format; known are {', '.join(known)} and folders; give --format")


def _inside(folder: str, folders: Sequence[str]) -> bool:
    return any(folder != other and folder.startswith(other.rstrip("/") + "/") for other in folders)
