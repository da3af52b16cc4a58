"""Reads a folder of images: a row a file, with its caption where a ``.txt`` of the same name lies beside it.

Columns: ``id`` (the path within the folder, without extension unless two images differ in nothing else),
``image`` (the path) and ``caption`` (null without a sidecar).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from clipsieve.core.contracts import Piece, Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.spread import Spread, in_threads
from clipsieve.errors import SourceError
from clipsieve.readers.files import extension, open_file, reading
from clipsieve.readers.images import is_image
from clipsieve.readers.shards import Cut, grouped, shards
from clipsieve.readers.source import Source

_SCHEMA = pa.schema([("id", pa.string()), ("image", pa.string()), ("caption", pa.string())])


@dataclass
class _Folder:
    images: list[SourceFile] = field(default_factory=list)
    captions: dict[str, SourceFile] = field(default_factory=dict)
    others: int = 0


class ImageFolder:
    """Folders of images, searched with all their subfolders, in the order of their paths.

    A sidecar in UTF-8 is the caption, without line breaks at its end; one that cannot be read makes its row an
    error. Files that are neither images nor their sidecars are left out, and ``describe`` says how many.
    """

    def __init__(self, source: Source) -> None:
        if not source.folders:
            raise SourceError(f"{source.name}: not a folder; give the folder that holds the images")
        self._source = source
        self._folders = {root: _sorted_out(root, source.files) for root in source.folders}
        if not any(folder.images for folder in self._folders.values()):
            raise SourceError(f"{source.name}: no images and no data files in it; check the path, or give --format")
        self.layout = source.infer_rows(_SCHEMA)

    def describe(self) -> str:
        """One line: images, captions, files left out, layout."""
        folders = self._folders.values()
        images = sum(len(folder.images) for folder in folders)
        captions = sum(len(folder.captions) for folder in folders)
        others = sum(folder.others for folder in folders)
        left_out = f", {others:,} left out" if others else ""
        what = f"folder of {images:,} images with {captions:,} captions{left_out}"
        return self._source.describe(what, self.layout)

    def files(self) -> Sequence[SourceFile]:
        """The images with their sidecars."""
        return [
            file for folder in self._folders.values() for file in (*folder.images, *folder.captions.values())
        ]  # fmt: skip

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
        """Ranges of images, numbered in the order of their paths; bytes are those of the images."""
        return shards((self._cut(root) for root in self._folders), self._source.limits)

    def _cut(self, root: str) -> Cut:
        sizes = [(i + 1, 1, image.size) for i, image in enumerate(self._folders[root].images)]
        return Cut(path=root, groups=grouped([np.array(sizes, dtype=np.int64).reshape(-1, 3)], self._source.limits))

    def read(self, shard: Shard) -> Rows:
        """The images of a shard by path; sidecars are read, images are not."""
        rows: list[dict[str, str | None]] = []
        origins: list[tuple[int, str]] = []
        errors: dict[int, str] = {}
        for piece in shard.pieces:
            origins.append((len(rows), f"{piece.path}/"))
            for name, image, sidecar in self._images(piece):
                if (shown := _spelt(image)) != image:
                    errors[len(rows)] = "unreadable: the name of the file is not UTF-8"
                    rows.append({"id": _spelt(name), "image": shown})
                    continue
                try:
                    rows.append({"id": name, "image": image, "caption": sidecar and _caption(sidecar)})
                except _CaptionError as failure:
                    errors[len(rows)] = str(failure)
                    rows.append({"id": name, "image": image})
        return Rows(table=pa.Table.from_pylist(rows, schema=_SCHEMA), origins=tuple(origins), errors=errors)

    def _images(self, piece: Piece) -> Iterator[tuple[str, str, str | None]]:
        folder = self._folders[piece.path]
        for image in folder.images[piece.start : piece.stop]:
            sidecar = folder.captions.get(_stem(image.path))
            yield self._names[image.path], image.path, sidecar.path if sidecar else None

    @cached_property
    def _names(self) -> dict[str, str]:
        names = {}
        for root, folder in self._folders.items():
            stems = Counter(_stem(image.path) for image in folder.images)
            for image in folder.images:
                alone = stems[_stem(image.path)] == 1
                names[image.path] = (_stem(image.path) if alone else image.path)[len(root) :].lstrip("/")
        return names

    def count(self, spread: Spread = in_threads) -> SourceCounts:
        """Counts the listed files that have an image's extension."""
        images = sum(is_image(file.path) for file in self._source.files)
        return SourceCounts(samples=images, images=images)


def _spelt(name: str) -> str:
    """``name`` with the bytes that are not UTF-8 spelt out: a table holds text alone."""
    return name.encode("utf-8", "backslashreplace").decode()


class _CaptionError(Exception):
    """A sidecar that cannot be read."""


def _sorted_out(root: str, files: Sequence[SourceFile]) -> _Folder:
    inside = [file for file in files if file.path.startswith(root.rstrip("/") + "/")]
    folder = _Folder(images=[file for file in inside if is_image(file.path)])
    stems = {_stem(image.path) for image in folder.images}
    folder.captions = {
        _stem(file.path): file for file in inside if extension(file.path) == ".txt" and _stem(file.path) in stems
    }
    folder.others = len(inside) - len(folder.images) - len(folder.captions)
    return folder


def _stem(path: str) -> str:
    return path[: path.rfind(".")]


def _caption(path: str) -> str:
    try:
        with open_file(path) as file, reading(path):
            stored = file.read()
        return stored.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _CaptionError(f"caption {path}: not UTF-8") from None
    except SourceError as failure:
        raise _CaptionError(f"caption {failure}") from None
