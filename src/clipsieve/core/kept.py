"""Images by URL that were fetched before, in a Parquet file: the bytes of each, or why there are none.

Beside a run there is such a file for each shard. URLs are told apart by their hash, since they may hold passwords.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.core.fetch import without_credentials
from clipsieve.core.storage import opened, place
from clipsieve.errors import ImageError, SourceError, StoreError

SCHEMA = pa.schema([("key", pa.binary(32)), ("url", pa.string()), ("bytes", pa.large_binary()), ("error", pa.string())])

GROUP = 16 * 2**20
"""Bytes of images that are read and written together."""

GROUPS = 2
"""So many stay in memory of a file: images are read about in their order."""


OPEN = 4
"""So many files stay open: shards are read in their order, a few at a time."""


def kept_rows(urls: Sequence[str], data: Sequence[bytes | None], errors: Sequence[str | None]) -> pa.Table:
    """Rows of such a file."""
    columns = [[_key(url) for url in urls], [without_credentials(url) for url in urls], data, errors]
    return pa.table(columns, schema=SCHEMA)


def read_kept(path: str, url: str) -> bytes | None:
    """What the file at ``path`` has of ``url``; None when it has nothing of it.

    Raises ``ImageError`` where it could not be fetched, ``SourceError`` for a damaged file.
    """
    try:
        return _opened(path, _version(path)).read(_key(url))
    except StoreError:
        raise
    except PermissionError as failure:
        raise SourceError(f"{path}: {failure.strerror}; check who may read it") from None
    except (OSError, pa.ArrowException) as failure:
        reason = " ".join(str(failure).split())[:100]
        raise SourceError(
            f"{path} is damaged ({reason}); remove it and run the same command again to fetch its images anew"
        ) from failure


def forget(path: str) -> None:
    """Lets go of a remote file, since another may have its name by the time that it is read again."""
    with _opening:
        _files.pop((path, None), None)


def _key(url: str) -> bytes:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()


def _version(path: str) -> tuple[int, int] | None:
    """Size and time of a local file, which tell whether it is still the one that is open; None for any other."""
    if "://" in path:
        return None
    about = os.stat(path)
    return about.st_size, about.st_mtime_ns


def _opened(path: str, version: tuple[int, int] | None) -> _Kept:
    """The file, opened once for all who want it at the same time."""
    with _opening:
        file = _files.pop((path, version), None) or _Kept(path)
        _files[path, version] = file
        while len(_files) > OPEN:
            del _files[next(iter(_files))]
        return file


_files: dict[tuple[str, tuple[int, int] | None], _Kept] = {}
_opening = threading.Lock()
os.register_at_fork(after_in_child=_opening._at_fork_reinit)  # type: ignore[attr-defined]


class _Kept:
    """An open file of that kind. Safe to use from several threads."""

    def __init__(self, path: str) -> None:
        self._held = ExitStack()
        self._file = pq.ParquetFile(self._held.enter_context(opened(place(path))))
        about = self._file.metadata
        self._ends = np.cumsum([about.row_group(group).num_rows for group in range(about.num_row_groups)])
        keys = self._file.read(["key"], use_threads=False)["key"].to_pylist()
        self._rows = {key: row for row, key in enumerate(keys)}
        self._groups: dict[int, Any] = {}
        self._reading = threading.Lock()

    def read(self, key: bytes) -> bytes | None:
        row = self._rows.get(key)
        if row is None:
            return None
        group = int(np.searchsorted(self._ends, row, side="right"))
        table = self._group(group)
        place = row - (int(self._ends[group - 1]) if group else 0)
        if (error := table["error"][place].as_py()) is not None:
            raise ImageError(error)
        data: bytes = table["bytes"][place].as_py()
        return data

    def _group(self, group: int) -> pa.Table:
        with self._reading:
            found = self._groups.pop(group, None)
            if found is None:
                found = self._file.read_row_group(group, ["bytes", "error"], use_threads=False)
            self._groups[group] = found
            while len(self._groups) > GROUPS:
                del self._groups[next(iter(self._groups))]
            return found
