"""Reads WebDataset tars: image-text pairs as caption (or list) rows, MINT-1T style documents as interleaved rows.

A pair is ``KEY.jpg`` with ``KEY.txt``, ``KEY.json`` or anything else under the same key (see ``tar.py`` for
keys with dots). Its row:

* ``__key__``: the path in the tar without the extension; it is text, nothing is ever extracted to it;
* ``image``: ``{bytes, path}``, the member that is named by the key and an image's extension alone, else the first
  image; null without one; in ``lists`` layout all images of the sample;
* ``caption``: the text of ``.txt`` or ``.caption``, else ``caption`` or ``text`` in the JSON;
* ``members``: ``[{name, bytes}]``, all other members exactly as stored, in their order.

Documents are described in ``docs/design/webdataset-documents.md``. Links and devices have no content; folders are
passed over. Where a tar is cut or damaged, the samples before are rows and the one within is an error row.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from clipsieve.core.contracts import Piece, Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.spread import Spread, in_threads
from clipsieve.errors import SourceError
from clipsieve.readers.documents import Content, DocumentError, Documents, parse_document, sample_id
from clipsieve.readers.files import Cursor, open_file, reading
from clipsieve.readers.images import is_image
from clipsieve.readers.shards import Cut, Items, Neighbours, check_sizes, grouped, items, shards, stable_hash
from clipsieve.readers.source import Source
from clipsieve.readers.tables import conformed
from clipsieve.readers.tar import Member, TarSample, tar_samples

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_MEMBERS = pa.list_(pa.struct([("name", pa.string()), ("bytes", pa.large_binary())]))

_CAPTION_ENDINGS = (".txt", ".caption")
_CAPTION_FIELDS = ("caption", "text", "TEXT")
_SAMPLES_AT_ONCE = 4096

_EXAMPLE_FILES, _EXAMPLES_OF_FILE = 16, 64
"""Documents from which columns are inferred."""


class WebDataset:
    """WebDataset tars, also as ``.tar.gz`` and ``.tar.zst``; pairs or documents, as the first JSON tells."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._cursor = Cursor()
        kind = source.layout or ("interleaved" if _holds_documents(source.files) else "captions")
        self._documents = Documents(_example_documents(source.files), source.name) if kind == "interleaved" else None
        self._schema = self._documents.schema if self._documents else _pair_schema(listed=kind == "lists")
        self.layout = replace(source, layout=kind).infer(self._schema)
        if self._documents:
            self._schema = source.documents(self._schema)

    def describe(self) -> str:
        """One line: files, layout and columns."""
        return self._source.describe("WebDataset", self.layout)

    def files(self) -> Sequence[SourceFile]:
        """The tars in reading order."""
        return self._source.files

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
        """Ranges of bytes (of the decompressed tar) that end where samples do."""
        return shards(self._cuts(spread), self._source.limits)

    def _cuts(self, spread: Spread) -> Iterator[Cut]:
        before = Neighbours(self._source.limits)
        for path, (groups, ids) in zip(self._source.paths, spread(self._groups, self._source.paths), strict=True):
            yield Cut(path=path, groups=groups, apart=self._documents is not None and before.meet(groups, ids))

    def _groups(self, path: str) -> tuple[Items, Set[int]]:
        """The groups of a tar's samples and, of documents, the hashed ids of the first."""
        ids = _Ids(self._source.limits.rows)
        samples = _samples(path)
        groups = grouped(self._items(ids.passing(samples) if self._documents else samples), self._source.limits)
        check_sizes(path, groups, "sample")
        return groups, ids.seen

    def _items(self, found: Iterator[TarSample]) -> Iterator[Items]:
        while some := list(islice(found, _SAMPLES_AT_ONCE)):
            # A document's rows are not known from its headers; its members are about as many.
            rows = np.array([len(sample.members) if self._documents else 1 for sample in some])
            yield items(np.array([sample.stop for sample in some]), some[0].start, rows)

    def read(self, shard: Shard) -> Rows:
        """The samples of a shard with the bytes of all their members.

        Raises ``SourceError`` when two adjacent documents have one id: nothing would tell their rows apart.
        """
        tables = [self._schema.empty_table()]
        origins: list[tuple[int, str]] = []
        errors: dict[int, str] = {}
        row = 0
        for piece in shard.pieces:
            origins.append((row, piece.path))
            data = self._cursor.read(piece.path, piece.start, piece.stop)
            for sample in tar_samples(io.BytesIO(data)):
                try:
                    table = self._rows(sample, _within(data), piece)
                except _PairError as failure:
                    errors[row] = str(failure)
                    table = pa.Table.from_pylist([{"__key__": sample.key}], schema=self._schema)
                if self._documents:
                    _check_apart(tables[-1], table, piece.path)
                tables.append(table)
                row += table.num_rows
        return Rows(table=pa.concat_tables(tables).combine_chunks(), origins=tuple(origins), errors=errors)

    def _rows(self, sample: TarSample, content: Content, piece: Piece) -> pa.Table:
        if self._documents:
            return conformed(self._documents.rows(sample, content, piece.path, piece.start), self._schema, piece.path)
        return pa.Table.from_pylist([_pair(sample, content, listed=self.layout.kind == "lists")], schema=self._schema)

    def count(self, spread: Spread = in_threads) -> SourceCounts:
        """Counts by going through each tar as a whole, image members unread."""
        return SourceCounts.total(spread(self._count, self._source.paths))

    def _count(self, path: str) -> SourceCounts:
        samples = images = 0
        with open_file(path) as tar, reading(path):
            for sample in _samples(path):
                samples += 1
                images += self._images(sample, tar)
        return SourceCounts(samples=samples, images=images)

    def _images(self, sample: TarSample, tar: BinaryIO) -> int:
        def content(member: Member) -> bytes | None:
            return b"" if is_image(member.name) else _content(tar, member)

        if self._documents:
            modality: list[str] = self._documents.rows(sample, content, "").column("modality").to_pylist()
            return modality.count("image")
        if self.layout.kind == "captions" or sample.error:
            return 1
        try:
            _caption(sample, content)
        except _PairError:
            return 1
        return len(_image_members(sample))


def _check_apart(before: pa.Table, table: pa.Table, path: str) -> None:
    last, first = before.column("sample_id")[-1:].to_pylist(), table.column("sample_id")[:1].to_pylist()
    if last and last == first:
        raise SourceError(f"{path}: two documents in a row have the sample_id {first[0]!r}; rename one")


class _Ids:
    """Remembers the (hashed) ids of the first ``limit`` documents that pass: a file of more shares no shard."""

    def __init__(self, limit: int) -> None:
        self.seen: set[int] = set()
        self._limit = limit

    def passing(self, samples: Iterator[TarSample]) -> Iterator[TarSample]:
        for sample in samples:
            if len(self.seen) < self._limit:
                self.seen.add(stable_hash(sample_id(sample)))
            yield sample


class _PairError(Exception):
    """Why a sample is not a row."""


def _pair_schema(*, listed: bool) -> pa.Schema:
    image = pa.list_(_IMAGE) if listed else _IMAGE
    return pa.schema([("__key__", pa.string()), ("image", image), ("caption", pa.string()), ("members", _MEMBERS)])


def _within(data: bytes) -> Content:
    """Content of members of the tar, or stretch of a tar, ``data``."""
    return lambda member: None if member.size is None else data[member.offset : member.offset + member.size]


def _content(tar: BinaryIO, member: Member) -> bytes | None:
    if member.size is None:
        return None
    tar.seek(member.offset)
    return tar.read(member.size)


def _pair(sample: TarSample, content: Content, *, listed: bool) -> dict[str, Any]:
    if sample.error:
        raise _PairError(sample.error)
    images = _image_members(sample) if listed else _image_members(sample)[:1]
    cells = [{"bytes": content(image), "path": image.name} for image in images]
    names = {image.name for image in images}
    return {
        "__key__": sample.key,
        "image": cells if listed else next(iter(cells), None),
        "caption": _caption(sample, content),
        "members": [
            {"name": member.name, "bytes": content(member)} for member in sample.members if member.name not in names
        ],
    }


def _image_members(sample: TarSample) -> list[Member]:
    """The images of a sample, the one named by the key alone first."""
    found = [member for member in sample.members if is_image(member.name) and member.size is not None]
    return sorted(found, key=lambda member: member.name.rpartition(".")[0] != sample.key)


def _caption(sample: TarSample, content: Content) -> str | None:
    for ending in (*_CAPTION_ENDINGS, ".json"):
        for member in sample.members:
            if member.name[len(sample.key) :].lower() != ending or (stored := content(member)) is None:
                continue
            try:
                text = stored.decode("utf-8-sig")
                caption = text if ending != ".json" else _caption_field(json.loads(text))
                (caption or "").encode()  # JSON can escape what is no text: half of a surrogate pair
                return caption
            except UnicodeError:
                raise _PairError(f"caption {member.name}: not UTF-8") from None
            except (ValueError, RecursionError) as failure:
                raise _PairError(f"malformed JSON in {member.name}: {failure}") from None
    return None


def _caption_field(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    return next((value[name] for name in _CAPTION_FIELDS if isinstance(value.get(name), str)), None)


def _samples(path: str) -> Iterator[TarSample]:
    with open_file(path) as file, reading(path):
        try:
            yield from tar_samples(file)
        except tarfile.TarError as failure:
            raise SourceError(f"{path}: not a tar ({failure}); fetch or write it again, or give --format") from None


def _holds_documents(files: Sequence[SourceFile]) -> bool:
    """Whether the first samples hold a document."""
    return bool(_example_documents(files[:1]))


def _example_documents(files: Sequence[SourceFile]) -> list[dict[str, Any]]:
    """The first documents of some files spread over the source."""
    examples: list[dict[str, Any]] = []
    for file in files[:: -(-len(files) // _EXAMPLE_FILES)]:
        with open_file(file.path) as tar, reading(file.path):
            for sample in islice(_samples(file.path), _EXAMPLES_OF_FILE):
                try:
                    examples.append(parse_document(sample, partial(_content, tar)))
                except DocumentError:
                    continue  # said when the sample itself is read
    return examples
