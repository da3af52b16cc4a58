"""What a process on a node must know and see before it opens a path, so that paths mean there what they mean here."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsieve.core import storage
from clipsieve.core.batch import Batch
from clipsieve.errors import ClipsieveError, EngineError, OutputError
from clipsieve.runfolder import TEMPORARY, remedy

if TYPE_CHECKING:
    from clipsieve.core.contracts import Reader, Shard
    from clipsieve.recipe import Recipe

PROBES = 3
"""Files of the source, and images, that a node is asked for: enough to tell a folder that is not shared."""

PATIENCE_S = 3.0
"""How long a node may take to see a new file: what file systems over a network remember of a folder can be old."""


@dataclass(frozen=True, kw_only=True)
class WorkerEnvironment:
    """The folder that relative paths are in, and how storage is reached; options may be secrets and are not shown.

    Whoever works for the run must see ``sentinels``, new files in the folders that are written to, and ``read``, some
    of what is read: a node with another folder of that name would take images for missing, and keep what it commits.
    """

    folder: str
    storage_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    relative: bool = False
    """Whether any path is relative to ``folder``."""
    sentinels: tuple[str, ...] = ()
    read: tuple[str, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe, *others: str) -> WorkerEnvironment:
        """That of this process, for a recipe and ``others`` of its paths."""
        write = recipe.write.path if recipe.write is not None else None
        said = [*recipe.read.path, recipe.read.root, write, *others]
        if os.path.isdir(recipe.model):
            said.append(recipe.model)
        relative = any(path is not None and is_of_machine(path) and not path.startswith("/") for path in said)
        return cls(folder=os.getcwd(), storage_options=recipe.storage_options, relative=relative)

    def apply(self) -> None:
        """Makes this process see paths as the one that began the run does. Raises ``EngineError`` where it cannot."""
        try:
            os.chdir(self.folder)
        except OSError as failure:  # a node may lack it where no path is relative
            if self.relative:
                raise EngineError(f"{_unseen(self.folder)}, which relative paths are in") from failure
        storage.configure(self.storage_options)
        _check_seen(self.sentinels, self.read)

    def reading(self, paths: Iterable[str]) -> WorkerEnvironment:
        """The same, with some of what is read: the first of ``paths`` that this process itself sees on this machine."""
        seen = islice((path for path in paths if is_of_machine(path) and os.path.exists(path)), PROBES)
        return replace(self, read=tuple(sorted({*self.read, *seen})))

    @contextmanager
    def writing(self, folders: Sequence[Path], prefix: str = "") -> Iterator[WorkerEnvironment]:
        """The same, with a sentinel file in each of ``folders`` until the block ends; an empty folder goes with it.

        Sentinels are named so that what follows a killed run, whose output files begin with ``prefix``, removes them.
        Raises ``OutputError`` where nothing can be written.
        """
        name = f"{TEMPORARY}{prefix}00000.nodes.{secrets.token_hex(4)}"
        made: list[Path] = []
        try:
            for folder in folders:
                made += takewhile(lambda parent: not parent.exists(), (folder, *folder.parents))
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / name).touch()
                except OSError as failure:
                    raise OutputError(
                        f"cannot write {folder}: {failure.strerror or failure}; {remedy(failure)}, "
                        "then run the same command again to resume"
                    ) from failure
            yield replace(self, sentinels=tuple(str(folder / name) for folder in folders))
        finally:
            for folder in folders:
                with suppress(OSError):
                    (folder / name).unlink(missing_ok=True)
            for folder in made:
                with suppress(OSError):  # it holds something
                    folder.rmdir()


def named_images(reader: Reader, shards: Sequence[Shard]) -> list[str]:
    """The paths of images that the first rows name: an empty mount point would show a folder, and no image in it."""
    if not shards:
        return []
    try:
        batch = Batch.from_rows(reader.read(shards[0]), reader.layout)
    except ClipsieveError:  # the engine tells of it
        return []
    paths = (image.path for image in batch.parts.images if image.path and image.data is None)
    return [path.removeprefix("file://") for path in paths]


def is_of_machine(path: str) -> bool:
    """Whether a path is one of a machine's file system, and not a URL or in an object store."""
    return "://" not in path


@lru_cache(maxsize=4)
def _check_seen(sentinels: tuple[str, ...], read: tuple[str, ...]) -> None:
    """Raises ``EngineError`` for the first path that is not seen here; looks once a process."""
    until = time.monotonic() + PATIENCE_S
    for paths, what in ((sentinels, "run folder and output"), (read, "source and images")):
        for path in paths:
            while not os.path.exists(path):
                if time.monotonic() >= until:
                    shown = os.path.dirname(path) if paths is sentinels else path
                    raise EngineError(
                        f"{_unseen(shown)} that the run was begun with: {what} must be the same for all nodes, on a "
                        "shared file system or in an object store"
                    )
                time.sleep(0.2)


def _unseen(path: str) -> str:
    return f"node {socket.gethostname()} does not see the {os.path.abspath(path)}"
