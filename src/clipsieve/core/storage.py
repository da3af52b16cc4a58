"""Places of runs and outputs: a folder of this machine, or one in an object store, by one set of operations.

A local place is a ``pathlib.Path`` and stays one. A remote one (``s3://bucket/run``) is a ``UPath``, which has its
interface; what is asked of it here is asked of the store anew, never of a listing that was kept, and again when the
store was busy. There is no rename in a store, and no need for one: an object appears whole, or not at all.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import numpy as np
import numpy.typing as npt

from clipsieve.core.ranges import bucket, filesystem, open_small, open_stream, protocol, read_whole
from clipsieve.core.retry import in_words, retrying
from clipsieve.core.spread import in_threads
from clipsieve.core.text import without_password
from clipsieve.core.threads import cores
from clipsieve.errors import StoreError, UsageError

T = TypeVar("T")

REQUESTS = 32
"""Requests in flight where many small objects are wanted: a store takes its time for each, and does many at a time."""

_ANY = 2**40
"""More bytes than a file has that is read as a whole."""

_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "memory")
"""Protocols of the stores that a run may be in; ``memory`` is this process's own, for tests and trials in Python."""

_READ_ONLY = ("http", "https", "github", "zip", "tar")

_ONE_SLASH = re.compile(rf"({'|'.join((*_STORES, *_READ_ONLY))}):/(?!/)", re.IGNORECASE)


def place(text: str | os.PathLike[str]) -> Path:
    """The place that a text names. Raises ``UsageError`` for one that can be none of a run."""
    if hasattr(text, "fs"):
        return cast(Path, text)
    text = os.fspath(text)
    found = protocol(text)
    shown = without_password(text)
    if found is None:
        # Also as a Path, which makes one slash of two.
        if scheme := _ONE_SLASH.match(text):
            meant = f"{scheme[1].lower()}://{shown[scheme.end() :]}"
            raise UsageError(f"{shown}: did you mean {meant}? Give that as text, or a folder of this machine by ./")
        path = Path(re.sub(r"^(file|local)://", "", text, flags=re.IGNORECASE))
        return path.absolute() if _ONE_SLASH.match(str(path)) else path
    if "::" in text or found in _READ_ONLY:
        raise UsageError(
            f"{shown}: only read from; give a folder of this machine or of a bucket, such as s3://bucket/run"
        )
    if shown != text:
        raise UsageError(f"{shown}: leave the password out, which would be written down; use storage_options")
    if found not in _STORES:
        raise UsageError(f"{text}: {found}:// is not known; s3, gs, az and hf are, and paths of this machine")
    within = text.partition("://")[2].rstrip("/")
    if not within or (within.startswith("/") and found != "memory"):
        raise UsageError(f"{text}: names no bucket; write {found}://bucket/run")
    try:
        filesystem(f"{found}://{within}")
    except StoreError as failure:
        raise UsageError(f"{text}: {str(failure).removeprefix(f'{found}://{within}: ')}") from None
    from upath import UPath

    return cast(Path, UPath(f"{found}://{within}"))


def place_or_none(text: str | os.PathLike[str]) -> Path | None:
    """The same; None for what can be no place of a run, such as the address of a database."""
    try:
        return place(text)
    except UsageError:
        return None


def is_local(path: Path) -> bool:
    """Whether the place is on this machine."""
    return isinstance(path, Path)


def threads(path: Path) -> int:
    """How many files of a place are best read at the same time."""
    return cores() if is_local(path) else REQUESTS


def protocols() -> list[str]:
    """Those for which there is a filesystem."""
    return sorted({*fsspec.available_protocols(), *fsspec.registry})


def configure(options: Mapping[str, Mapping[str, Any]]) -> None:
    """Gives each protocol's filesystems these options, from now on and in this process."""
    for name, said in options.items():
        fsspec.config.conf[name] = {**fsspec.config.conf.get(name, {}), **said}


@contextmanager
def configured(options: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """The same until the block ends."""
    before = {name: fsspec.config.conf.get(name) for name in options}
    configure(options)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del fsspec.config.conf[name]
            else:
                fsspec.config.conf[name] = value


def exists(path: Path) -> bool:
    """Whether a file or folder is there."""
    return path.exists() if is_local(path) else _kind(path) is not None


def is_file(path: Path) -> bool:
    """Whether a file is there."""
    return path.is_file() if is_local(path) else _kind(path) == "file"


def is_folder(path: Path) -> bool:
    """Whether a folder is there; in a store it is there when something is in it."""
    return path.is_dir() if is_local(path) else _kind(path) == "directory"


def names(folder: Path) -> list[str]:
    """The names of what is in a folder, in no order; none where there is no folder."""
    if is_local(folder):
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []
    own = _name(folder)
    try:
        listed = _asked(folder, lambda files: files.ls(own, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path.rstrip("/").rpartition("/")[2] for path in listed if path.strip("/") != own.strip("/")]


def read(path: Path) -> bytes:
    """The bytes of a file."""
    if is_local(path):
        return path.read_bytes()
    return _of_place(path, lambda: read_whole(str(path), _ANY))


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read, in any order; a remote one is fetched whole when it is small, else by blocks."""
    if is_local(path):
        with open(path, "rb") as file:
            yield file
        return
    with _of_place(path, lambda: open_small(str(path))) as file:
        yield file


@contextmanager
def streamed(path: Path) -> Iterator[BinaryIO]:
    """A file to read from front to back."""
    with open(path, "rb") if is_local(path) else _of_place(path, lambda: open_stream(str(path))) as file:
        yield file


def load_array(path: Path) -> npt.NDArray[Any]:
    """The array in a ``.npy`` file: memory-mapped where it is local, else in memory."""
    if is_local(path):
        return cast("npt.NDArray[Any]", np.load(path, mmap_mode="r", allow_pickle=False))
    return cast("npt.NDArray[Any]", np.load(io.BytesIO(read(path)), allow_pickle=False))


@contextmanager
def uploading(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that becomes the object ``path``, whole, when the block ends well."""
    with tempfile.NamedTemporaryFile(prefix="clipsieve-") as file:
        yield cast(BinaryIO, file)
        file.flush()
        _written(path, lambda files: files.put_file(file.name, _name(path)))


def create(path: Path, data: bytes) -> bool:
    """Puts a small object where there is none; says whether it did.

    Where the store cannot make that one step, another may have come between.
    """
    try:
        _asked(path, lambda files: files.pipe_file(_name(path), data, mode="create"))
    except FileExistsError:
        return False
    except (NotImplementedError, OSError):
        if exists(path):
            return False
        put(path, data)
    return True


def put(path: Path, data: bytes) -> None:
    """Puts a small object, in place of the one that is there."""
    _written(path, lambda files: files.pipe_file(_name(path), data))


def copy(stored: Path, path: Path) -> None:
    """A second object of the same bytes, which need not come here where both are in one store."""
    if protocol(str(stored)) == protocol(str(path)):
        _asked(path, lambda files: files.cp_file(_name(stored), _name(path)))
    else:
        with streamed(stored) as source, uploading(path) as target:
            shutil.copyfileobj(source, target)


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it, where it is there."""
    if is_local(path):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return
    # Not by the filesystem's own rm, to which a name with *, ? or [ in it stands for others, too.
    own = _name(path).rstrip("/")
    found = _asked(path, lambda files: files.find(own))
    every = [name for name in found if name == own or name.startswith(f"{own}/")]

    def drop(name: str) -> None:
        with suppress(FileNotFoundError):
            _asked(path, lambda files: files.rm_file(name))

    deque(in_threads(drop, every, REQUESTS), maxlen=0)


def drop_unfinished(folder: Path, named: re.Pattern[str] = re.compile("")) -> None:
    """Ends the uploads in parts into a folder of a store that a dead process began and never finished.

    Nobody sees them, but they are paid for. ``named`` says how the names begin of the files that they were to be, with
    the folders within ``folder`` that these are in.
    """
    if is_local(folder) or protocol(str(folder)) not in ("s3", "s3a"):
        return
    name, _, within = _name(folder).partition("/")
    # Who may write need not be allowed to list uploads; what is left over then hurts nobody.
    with suppress(OSError):
        end_uploads(folder.fs, name, within, named)  # type: ignore[attr-defined]


def end_uploads(files: Any, bucket: str, within: str, named: re.Pattern[str]) -> None:
    """Ends such uploads into the folder ``within`` of a bucket of S3, by its filesystem."""
    folder = f"{within}/" if within else ""
    for upload in _unfinished(files, bucket, folder):
        if named.match(upload["Key"].removeprefix(folder)):
            files.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def _unfinished(files: Any, bucket: str, prefix: str) -> list[Mapping[str, str]]:
    """All uploads in parts that are not finished, of which a store tells a thousand at a time."""
    found: list[Mapping[str, str]] = []
    after: dict[str, str] = {}
    while True:
        page = files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **after)
        found += page.get("Uploads") or ()
        if not page.get("IsTruncated"):
            return found
        after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _kind(path: Path) -> str | None:
    name = _name(path)
    try:
        return str(_asked(path, lambda files: files.info(name))["type"])
    except FileNotFoundError:
        return None


def _asked(path: Path, work: Callable[[Any], T]) -> T:
    """What the filesystem of a remote ``path`` answers, without any listing that it may have kept."""
    files = path.fs  # type: ignore[attr-defined]

    def afresh() -> T:
        files.invalidate_cache(_name(path.parent))
        files.invalidate_cache(_name(path))
        return work(files)

    return _of_place(path, lambda: retrying(str(path), afresh))


def _written(path: Path, work: Callable[[Any], object]) -> None:
    """The same for what makes an object; only the bucket can be missing then, for which each store has other words."""
    try:
        _asked(path, work)
    except FileNotFoundError as failure:
        raise FileNotFoundError(errno.ENOENT, f"there is no {bucket(str(path))}") from failure


def _of_place(path: Path, work: Callable[[], T]) -> T:
    """``work`` on a remote place; one that must not be touched is the place's fault."""
    try:
        return work()
    except PermissionError as failure:
        raise StoreError(f"{path}: {failure.strerror}; check what the credentials may do there") from failure
    except ValueError as failure:
        raise StoreError(f"{path}: {in_words(failure)}") from failure


def _name(path: Path) -> str:
    """The path within its filesystem."""
    return str(path.path)  # type: ignore[attr-defined]
