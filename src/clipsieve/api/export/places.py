"""Where an export goes: a path is checked before any work, and what is written appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from clipsieve.core.storage import is_local
from clipsieve.errors import OutputError, RecipeError
from clipsieve.runfolder import OWN_FOLDERS, TEMPORARY, remedy

_FILES = (".csv", ".json", ".jsonl", ".npy", ".parquet")
"""Endings that a folder is hardly meant to have."""


def check_place(format: str, path: str, suffix: str, run: Path) -> Path:
    """The path as one that can be written; ``suffix`` ends the one file of the format, nothing where it is a folder.

    Raises ``RecipeError`` for a path of another kind and ``OutputError`` for one that is taken.
    """
    example = f"{format}:export{suffix or '/'}"
    if not path or "://" in path:
        raise RecipeError(f"--to {format}:{path}: give a path on this machine, such as {example}")
    if suffix and not path.endswith(suffix):
        raise RecipeError(f"--to {format}:{path}: this is one file that ends in {suffix}, such as {example}")
    if not suffix and path.endswith(_FILES):
        raise RecipeError(f"--to {format}:{path}: this is a folder, such as {example}; end its name in /")
    place = Path(path)
    whole, own = place.resolve(), run.resolve()
    if is_local(run) and any(whole.is_relative_to(own / name) for name in OWN_FOLDERS):
        raise OutputError(f"{path} is the run folder's own; choose another path for the export")
    check_free(place)
    return place


def check_free(path: Path) -> None:
    """Raises ``OutputError`` when something is there."""
    if os.path.lexists(path):
        raise OutputError(f"{path} already exists; remove it or choose another")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which becomes ``path`` as ``_whole`` says."""
    with _whole(path) as partial, open(partial, "wb") as file:
        yield file


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` as ``_whole`` says."""
    with _whole(path) as partial:
        partial.mkdir()
        yield partial


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A place of this export's own, which becomes ``path`` when the block ends well and is removed when it does not.

    Raises ``OutputError`` when it cannot be written, or another has written there meanwhile.
    """
    # Absolute, for Arrow, which takes run:1/x for a URL.
    partial = path.absolute().with_name(f"{TEMPORARY}{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        check_free(path)
        os.replace(partial, path)
    except OSError as failure:
        raise OutputError(f"cannot write {path}: {failure.strerror or failure}; {remedy(failure)}") from failure
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            partial.unlink(missing_ok=True)
