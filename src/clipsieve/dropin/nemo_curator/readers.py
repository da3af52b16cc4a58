"""Readers: where documents come from, in the words of a recipe's ``read``.

What cannot be done is refused by name when the stage is made; what changes no result here is accepted and checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.core.storage import configured
from clipsieve.dropin.nemo_curator.checks import (
    COLUMNS,
    COUNT,
    FLAG,
    PATHS,
    READ_KWARGS,
    SCHEMA,
    TEXT,
    TYPES,
    check,
)
from clipsieve.dropin.nemo_curator.stages import ProcessingStage
from clipsieve.errors import UsageError

_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "kib": 2**10, "m": 10**6, "mb": 10**6, "mib": 2**20,
          "g": 10**9, "gb": 10**9, "gib": 2**30}  # fmt: skip


class InterleavedReader(ProcessingStage):
    """What both readers share."""

    format: ClassVar[str]
    file_paths: str | Sequence[str]
    files_per_partition: int | None
    blocksize: int | str | None
    max_batch_bytes: int | None
    read_kwargs: dict[str, Any]
    fields: Sequence[str] | None

    def inputs(self) -> tuple[list[str], list[str]]:
        """Nothing: a reader is the first stage."""
        return [], []

    def read(self) -> dict[str, Any]:
        """The ``read`` of a recipe; paths are absolute."""
        said: dict[str, Any] = {"path": self.paths, "format": self.format, "layout": "interleaved"}
        if self.fields is not None:
            said["fields"] = list(self.fields)
        if sizes := [size for size in (_size(self.blocksize, self.name), self.max_batch_bytes) if size is not None]:
            said["shard_bytes"] = int(min(sizes))
        return said

    @property
    def paths(self) -> list[str]:
        """Paths and globs, absolute where they are local."""
        listed = [self.file_paths] if isinstance(self.file_paths, (str, os.PathLike)) else self.file_paths
        return [_absolute(os.fspath(path)) for path in listed]

    @contextmanager
    def storage(self) -> Iterator[None]:
        """Gives the storage options to every filesystem of the files' protocols that is opened meanwhile."""
        options = self.read_kwargs.get("storage_options") or {}
        protocols = {path.partition("://")[0] for path in self.paths if "://" in path} if options else set()
        with configured(dict.fromkeys(protocols, options)):
            yield

    def _check(self) -> None:
        check(self, name=TEXT, file_paths=PATHS, fields=COLUMNS.or_none, read_kwargs=READ_KWARGS)
        check(self, files_per_partition=COUNT.or_none, max_batch_bytes=COUNT.or_none)
        if not self.paths:
            raise UsageError(f"{self.name}: file_paths is empty; give a path, a glob, a folder or a list of them")
        for path in self.paths:
            if re.match(r"https?://", path, re.IGNORECASE):
                raise UsageError(f"{self.name}: {path} is not fetched; download it first, or read it from a bucket")
        _size(self.blocksize, self.name)
        if others := sorted(set(map(str, self.read_kwargs)) - {"storage_options"}):
            raise UsageError(f"{self.name}: read_kwargs {', '.join(others)} is not supported; storage_options is")
        if taken := sorted(set(self.fields or ()) & set(INTERLEAVED_SCHEMA.names)):
            raise UsageError(f"{self.name}: fields names {taken[0]!r}, which is always read; leave it out")


@dataclass
class InterleavedParquetReader(InterleavedReader):
    """Reads interleaved rows from Parquet: a path, glob or folder, or several.

    ``fields`` are the columns beside the schema's that pass through (None: all). ``schema`` names these columns with
    their types, ``schema_overrides`` the types of some.
    """

    file_paths: str | Sequence[str]
    files_per_partition: int | None = None
    blocksize: int | str | None = None
    fields: Sequence[str] | None = None
    max_batch_bytes: int | None = None
    read_kwargs: dict[str, Any] = field(default_factory=dict)
    schema: pa.Schema | None = None
    schema_overrides: dict[str, pa.DataType] | None = None
    name: str = "interleaved_parquet_reader"
    format: ClassVar[str] = "parquet"

    def __post_init__(self) -> None:
        self._check()
        check(self, schema=SCHEMA.or_none, schema_overrides=TYPES.or_none)
        self._types()

    def read(self) -> dict[str, Any]:
        """The ``read`` of a recipe."""
        said, types = super().read(), self._types()
        if self.schema is not None and self.fields is None:
            said["fields"] = []  # those with a type are read anyway
        if self.fields is not None:
            types = {name: kind for name, kind in types.items() if name in self.fields}
        return said | ({"types": types} if types else {})

    def _types(self) -> dict[str, str]:
        said = {} if self.schema is None else {one.name: one.type for one in self.schema}
        types = said | (self.schema_overrides or {})
        for name, kind in types.items():
            fixed = name in INTERLEAVED_SCHEMA.names
            if fixed and kind != INTERLEAVED_SCHEMA.field(name).type:
                raise UsageError(f"{self.name}: {name} is always {INTERLEAVED_SCHEMA.field(name).type}; leave it out")
            if not fixed and not _has_alias(kind):
                raise UsageError(f"{self.name}: column {name!r}: a type such as {kind} cannot be asked for")
        return {name: str(kind) for name, kind in types.items() if name not in INTERLEAVED_SCHEMA.names}


@dataclass
class InterleavedWebdatasetReader(InterleavedReader):
    """Reads MINT-1T style documents from WebDataset tars: a path, glob or folder, or several.

    The JSON has ``sample_id``, ``texts`` and ``images``; images are found by their names, bytes are always read.
    """

    file_paths: str | Sequence[str]
    files_per_partition: int | None = None
    blocksize: int | str | None = None
    max_batch_bytes: int | None = None
    read_kwargs: dict[str, Any] = field(default_factory=dict)
    materialize_on_read: bool = False
    json_extensions: Sequence[str] | None = None
    image_extensions: Sequence[str] | None = None
    sample_id_field: str | None = None
    texts_field: str = "texts"
    images_field: str = "images"
    image_member_field: str | None = None
    fields: Sequence[str] | None = None
    name: str = "interleaved_webdataset_reader"
    format: ClassVar[str] = "webdataset"

    def __post_init__(self) -> None:
        self._check()
        check(self, materialize_on_read=FLAG)
        fixed = {
            "sample_id_field": (None, "sample_id"),
            "texts_field": ("texts",),
            "images_field": ("images",),
            "image_member_field": (None,),
            "image_extensions": (None,),
            "json_extensions": (None, [".json"], (".json",), ["json"], ("json",)),
        }
        for option, known in fixed.items():
            if (value := getattr(self, option)) not in known:
                raise UsageError(
                    f"{self.name}: {option}={value!r} is not supported; documents have KEY.json with sample_id, texts "
                    "and images, and images under any image extension"
                )


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _size(value: int | str | None, name: str) -> int | None:
    """Bytes of ``128MiB`` or a number."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
    if found is None or found[2].lower() not in _UNITS or float(found[1]) <= 0:
        raise UsageError(f"{name}: blocksize is a size such as 128MiB, not {value!r}")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def _has_alias(kind: pa.DataType) -> bool:
    try:
        return bool(pa.type_for_alias(str(kind)) == kind)
    except ValueError:
        return False
