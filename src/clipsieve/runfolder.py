"""The run folder: what was asked, what is done, and the files that say so.

A part of ``ledger/`` (or, before a selection over the whole data set, of ``scores/``) is written after all that it
stands for is in place: it is the commit. Every file appears under its final name only when whole, so a process
may be killed at any instant and the same command run again. The folder may be in an object store (``core.storage``).
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from clipsieve.core import storage
from clipsieve.core.contracts import Piece, Shard, SourceFile, Vectors
from clipsieve.core.lock import Lock, locked
from clipsieve.errors import ClipsieveError, OutputError, RunFolderError, SourceError, StoreError
from clipsieve.recipe import ADDED

Kind: TypeAlias = Literal["ledger", "scores"]

_DIFFERENCES = 3
"""So many differences between two recipes are told in full."""

OWN_FOLDERS = ("ledger", "scores", "staged", "vectors", "fetched", "added")
"""The folders in a run folder that no output may go to."""

_OWN = re.compile(rf"[^/]*$|({'|'.join(OWN_FOLDERS)})/")
"""How the names of a run's own files begin: other folders within its own are of others."""

TEMPORARY = ".partial-"
"""Prefix of files and folders that are being written; leftovers of a dead process are removed."""


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears as ``path`` when the block ends well, and not at all when it does not.

    Two that write the same file at the same time do not get into each other's way: the last one stays. Raises
    ``OutputError`` when the disk is full or the file cannot be written.
    """
    if not storage.is_local(path):
        with _remote_atomic(path) as file:
            yield file
        return
    partial = path.with_name(f"{TEMPORARY}{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    except BaseException as failure:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if not isinstance(failure, OSError) or isinstance(failure, StoreError):  # which is of what was to be written
            raise
        raise OutputError(
            f"cannot write {path}: {failure.strerror or failure}; {remedy(failure)}, "
            "then run the same command again to resume"
        ) from failure


@contextmanager
def _remote_atomic(path: Path) -> Iterator[BinaryIO]:
    """The same for an object of a store, which is uploaded whole."""
    try:
        with storage.uploading(path) as file:
            yield file
    except StoreError as failure:
        raise OutputError(f"cannot write {path}: {failure}") from failure
    except FileNotFoundError as failure:
        raise OutputError(
            f"cannot write {path}: {failure.strerror or failure}; make it, or check its name"
        ) from failure
    except OSError as failure:
        raise OutputError(
            f"cannot write {path}: {failure.strerror or failure}; {remedy(failure)} (in {tempfile.gettempdir()}, where "
            "a file waits until it is whole), then run the same command again to resume"
        ) from failure


def remedy(failure: OSError) -> str:
    """What to do about a file that could not be written, before the same command is run again."""
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room"
    if failure.errno == errno.EFBIG:
        return "raise the limit on the size of files (ulimit -f)"
    return "check the path and its permissions"


@contextmanager
def undamaged(path: Path, then: str = "give another --out") -> Iterator[None]:
    """Turns what goes wrong while a file of the run folder is read into a ``RunFolderError``; ``then`` is the
    remedy."""
    try:
        yield
    except ClipsieveError:
        raise
    except FileNotFoundError:
        raise RunFolderError(f"{path} is gone: the run folder is damaged; {then}") from None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError, pa.ArrowException) as failure:
        raise RunFolderError(f"{path} is damaged ({_short(failure)}); {then}") from failure


def _short(failure: Exception) -> str:
    return " ".join(str(failure).split())[:100]


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file, whole or not at all."""
    with atomic(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a Parquet file, or of its columns those it has among ``columns``, in this thread."""
    with storage.opened(path) as file:  # by its name Arrow may take it for a URL, as run:1/ledger/00000.parquet
        return pq.ParquetFile(file, pre_buffer=True).read(columns, use_threads=False)


def clean_partials(folder: Path, named: re.Pattern[str] = re.compile("")) -> None:
    """Removes what a dead process left half-written, of files with names that begin as ``named`` says."""
    if not storage.is_local(folder):
        storage.drop_unfinished(folder, named)
        return
    for leftover in folder.glob(f"{TEMPORARY}*"):
        if named.match(leftover.name.removeprefix(TEMPORARY)):
            storage.remove(leftover)


class RunFolder:
    """One execution's folder, held by one process at a time.

    Use as a context manager; ``open`` refuses a folder that another recipe, encoder or process holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began_with: Mapping[str, str] = {}
        """Versions of what decides results when the run began; empty for a new run."""
        self._lock: Lock | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> RunFolder:
        return self

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which write into the folder while this one holds it."""
        return {**self.__dict__, "_lock": None, "_scratch": None}

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    @property
    def scratch(self) -> Path:
        """A folder of this machine for what is needed while the run goes on, and can be made again."""
        if storage.is_local(self.path):
            return self.path / "staged"
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="clipsieve-")
        return Path(self._scratch.name)

    @classmethod
    def open(
        cls,
        path: Path,
        identity: Mapping[str, Any],
        executed: Mapping[str, Any],
        say: Callable[[str], None] | None = None,
    ) -> RunFolder:
        """Takes the folder for the recipe ``identity``; ``executed`` records versions and the encoder.

        With ``say``, who holds a folder in a store and may be dead is waited for, see ``core.lock.locked``.
        Raises ``RunFolderError`` when the folder is no run, is locked, or holds another recipe or encoder.
        """
        folder = cls(path)
        recipe_file = path / "recipe.yaml"
        try:
            if storage.is_file(path):
                raise RunFolderError(f"{path} is a file; give a folder for the run with --out")
            if not storage.exists(recipe_file) and not storage.exists(path / ".lock") and storage.names(path):
                raise RunFolderError(f"{path} is not empty and not a run folder; give another one with --out")
            if storage.is_local(path):
                path.mkdir(parents=True, exist_ok=True)
            folder._take_lock(say)
        except ClipsieveError:
            raise
        except OSError as failure:
            raise RunFolderError(f"cannot use {path} as a run folder: {failure.strerror or failure}") from None
        try:
            folder._settle(recipe_file, identity, executed)
        except BaseException:
            folder.__exit__()  # who is refused holds no lock
            raise
        return folder

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """Takes the folder of a finished run, to add to it.

        Raises ``RunFolderError`` when another process holds it or some of its shards are not done.
        """
        folder = cls(path)
        try:
            folder._take_lock()
        except ClipsieveError:
            raise
        except OSError as failure:
            raise RunFolderError(f"cannot write in {path}: {failure.strerror or failure}") from None
        try:
            shards = len(folder.stored_shards())
            if (done := len(folder.readable())) < shards:
                raise RunFolderError(
                    f"{path} is not finished ({done} of {shards} shards are done); run the command that began it again"
                )
            clean_partials(path / "added")
        except BaseException:
            folder.__exit__()
            raise
        return folder

    def _settle(self, recipe_file: Path, identity: Mapping[str, Any], executed: Mapping[str, Any]) -> None:
        """Checks or writes the recipe and removes what a dead process left half-written."""
        if storage.exists(recipe_file):
            with undamaged(recipe_file):
                found = dict(yaml.safe_load(storage.read(recipe_file).decode()))
            self._check(found, identity, executed)
            self.began_with = dict((found.get("executed") or {}).get("versions") or {})
        else:
            with atomic(recipe_file) as file:
                text = yaml.safe_dump({**identity, "executed": dict(executed)}, sort_keys=False, allow_unicode=True)
                file.write(text.encode())
        if storage.is_local(self.path):
            for name in (".", *OWN_FOLDERS):
                clean_partials(self.path / name)
        else:
            clean_partials(self.path, _OWN)

    def _take_lock(self, say: Callable[[str], None] | None = None) -> None:
        try:
            self._lock = locked(self.path / ".lock", say)
        except BlockingIOError as holder:
            who = "another process" if storage.is_local(self.path) else f"another process ({holder})"
            raise RunFolderError(f"{self.path} is in use by {who}; wait for it or give another --out") from None

    def _check(self, found: Mapping[str, Any], identity: Mapping[str, Any], executed: Mapping[str, Any]) -> None:
        began = found.get("executed") or {}
        known = ("encoder", "filters", "scores_of")
        then = {**ADDED, **found, **{key: began.get(key) for key in known}}
        now = {**identity, **{key: executed.get(key) for key in known}}
        changed = [key for key in now if then.get(key) != now[key]]
        if changed:
            shown = changed[:_DIFFERENCES]
            differences = "; ".join(_difference(key, then.get(key), now[key]) for key in shown)
            differences += f"; and {len(changed) - len(shown)} more" if len(changed) > len(shown) else ""
            raise RunFolderError(
                f"{self.path} holds a run of another recipe ({differences}); give another --out or the old recipe"
            )

    def shards(self, files: Sequence[SourceFile], found: Sequence[Shard] | None) -> tuple[Shard, ...]:
        """The shard list: the stored one when the source is still the same, else ``found`` is stored.

        Raises ``RunFolderError`` when the source has changed since.
        """
        path = self.path / "shards.json"
        listed = [{"path": f.path, "size": f.size, "version": f.version} for f in files]
        if storage.exists(path):
            with undamaged(path):
                before = {f["path"]: f for f in json.loads(storage.read(path))["files"]}
            now = {f["path"]: f for f in listed}
            changed = [path for path, file in now.items() if before.get(path) != file]
            changed += [path for path in before if path not in now]
            if changed:
                others = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
                raise RunFolderError(
                    f"the source has changed since this run began ({changed[0]}{others}); give another --out"
                )
            return self.stored_shards()
        if not found:
            raise SourceError("the source holds no samples; there is nothing to do")
        pieces = [[{"path": p.path, "start": p.start, "stop": p.stop} for p in shard.pieces] for shard in found]
        with atomic(path) as file:
            file.write(json.dumps({"files": listed, "shards": pieces}, indent=1).encode())
        return tuple(found)

    def stored_shards(self) -> tuple[Shard, ...]:
        """The shard list as it was stored when the run began."""
        path = self.path / "shards.json"
        with undamaged(path):
            stored = json.loads(storage.read(path))["shards"]
            return tuple(
                Shard(number=number, pieces=tuple(Piece(**piece) for piece in pieces))
                for number, pieces in enumerate(stored)
            )

    def has_shards(self) -> bool:
        """Whether the shard list is already there."""
        return storage.exists(self.path / "shards.json")

    def part(self, kind: Kind, shard: int) -> Path:
        """Where the part of ``shard`` is or will be."""
        return self.path / kind / f"{shard:05d}.parquet"

    def staged(self, shard: int) -> Path:
        """Folder of a shard's survivors between the two passes."""
        return self.path / "staged" / f"{shard:05d}"

    def vectors(self, shard: int, of: Literal["image", "text"]) -> Path:
        """Where the vectors of a shard's ledger rows are, ``(rows, dim)`` float32."""
        return self.path / "vectors" / f"{shard:05d}.{of}.npy"

    def fetched(self, shard: int) -> Path:
        """Where the images by URL of a shard are kept, if they are; see ``core.kept``."""
        return self.path / "fetched" / f"{shard:05d}.parquet"

    def load_vectors(self, shard: int, of: Literal["image", "text"]) -> Vectors:
        """The vectors of a shard's ledger rows, memory-mapped where the folder is local."""
        return storage.load_array(self.vectors(shard, of))

    def done(self, kind: Kind) -> set[int]:
        """Numbers of the shards whose part is committed, as the folder lists them.

        A store may list a part late: its shard is done again, and the same part written.
        """
        found = (re.fullmatch(r"([0-9]+)\.parquet", name) for name in storage.names(self.path / kind))
        return {int(part[1]) for part in found if part}

    def readable(self) -> list[int]:
        """The shards of which there is a ledger, in input order: of a run that came to its end all, listed or not."""
        ended = not storage.is_local(self.path) and storage.exists(self.path / "summary.json")
        return list(range(len(self.stored_shards()))) if ended else sorted(self.done("ledger"))

    def committed(self) -> list[int]:
        """The same. Raises ``RunFolderError`` when there is none."""
        if not (shards := self.readable()):
            if scored := len(self.done("scores")):
                raise RunFolderError(
                    f"{self.path} is not finished: {scored:,} of {len(self.stored_shards()):,} shards are scored, and "
                    "none is decided before all are; run the same command again to go on"
                )
            raise RunFolderError(f"{self.path} holds no ledger: nothing has been committed")
        return shards

    def schema(self, kind: Kind) -> pa.Schema:
        """The columns of the committed parts, with their metadata. Raises ``RunFolderError`` when there is none."""
        done = self.done(kind)
        if not done:
            raise RunFolderError(f"{self.path} holds no {kind}: nothing has been committed")
        path = self.part(kind, min(done))
        with undamaged(path), storage.opened(path) as file:
            return pq.read_schema(file)

    def part_table(self, kind: Kind, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The committed part of one shard. Raises ``RunFolderError`` when it is damaged."""
        path = self.part(kind, shard)
        try:
            return read_table(path, columns)
        except StoreError:
            raise
        except (OSError, pa.ArrowException) as failure:
            raise RunFolderError(
                f"{path} is damaged ({_short(failure)}); remove it and run the same command again to redo its shard"
            ) from failure

    def rows(self, shard: int) -> int:
        """How many rows the ledger has of a shard."""
        path = self.part("ledger", shard)
        then = "remove it and run the same command again to redo its shard"
        with undamaged(path, then), storage.opened(path) as file:
            return int(pq.read_metadata(file).num_rows)

    def drop_staged(self) -> None:
        """Removes the survivors' bytes, once all is committed."""
        storage.remove(self.path / "staged")


def _difference(name: str, then: Any, now: Any) -> str:
    """What a part of a recipe was and is; of a section only what differs in it."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        return "; ".join(_difference(f"{name}.{key}", then.get(key), now.get(key)) for key in keys)
    return f"{name}: {_brief(then)} then, {_brief(now)} now"


def _brief(value: Any) -> str:
    text = json.dumps(_said(value), ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _said(value: Any) -> Any:
    """A value without the keys that say nothing; a rule alone stands for itself."""
    if isinstance(value, list):
        return [_said(one) for one in value]
    if isinstance(value, dict):
        said = {key: _said(one) for key, one in value.items() if one is not None}
        return said["rule"] if said.keys() == {"rule"} else said
    return value
