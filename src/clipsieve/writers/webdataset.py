"""WebDataset tars: the members of a sample side by side under one key, images with their stored bytes.

A caption row becomes ``KEY.jpg`` (the extension by the first bytes, ``jpg`` when they tell nothing), ``KEY.txt`` and
``KEY.json`` with its columns; a list row ``KEY.0.jpg``, ``KEY.1.jpg`` and the same. A sample that came from a tar is
written with the members it had, under the names they had. Documents are laid out by ``documents``.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.core.layout import LayoutKind
from clipsieve.writers.cells import dump, image_bytes, image_type, json_rows, parsed, plain, visible
from clipsieve.writers.documents import documents
from clipsieve.writers.keys import encoded, unique

_TAR_COLUMNS = {"__key__", "image", "caption", "members"}
_TAR_MEMBERS = pa.list_(pa.struct([("name", pa.string()), ("bytes", pa.large_binary())]))
"""What the reader of WebDataset makes of a pair: its key, image and caption, and all other members as stored."""

_UNSAFE = re.compile(r"(^|/)\.{0,2}(/|$)|[\0-\x1f\x7f\\]")
"""In a key: empty parts, ``.`` and ``..``, control characters, and the folder separator of Windows."""


@dataclass(frozen=True, kw_only=True)
class WebDatasetWriter:
    """Writes samples of any layout as a tar; equal batches give equal bytes (no times, no owners).

    The key of a row is its id, percent-encoded with its dots, or the file's name and the row's number
    (``00012-000345``) where it has none; a key from a tar stays, unless it would lead out of the folder that it is
    unpacked in. A second sample of the same key becomes ``KEY~2``.
    """

    suffix: ClassVar[str] = ".tar"
    needs_bytes: ClassVar[bool] = True
    layouts: ClassVar[tuple[LayoutKind, ...]] = ("captions", "lists", "interleaved")

    def write(self, batch: Batch, file: BinaryIO, name: str) -> None:
        """One tar; long and non-ASCII member names get PAX headers."""
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for member, data in _members(batch, name):
                info = tarfile.TarInfo(member)  # its defaults: mode 0644, owner 0, time 0
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _members(batch: Batch, name: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each member, a sample after the other."""
    if batch.layout.kind == "interleaved":
        return documents(batch)
    return _tar_rows(batch, name) if _are_from_tar(batch.table.schema) else _rows(batch, name)


def _rows(batch: Batch, name: str) -> Iterator[tuple[str, bytes]]:
    """The images of a row, its first text, the JSON of its columns."""
    table, parts, column = visible(batch.table), batch.parts, batch.layout.image
    keys = unique(encoded(key) if key else f"{name}-{row:06d}" for row, key in enumerate(parts.sample_ids))
    first_texts = dict(zip(reversed(parts.text_samples.tolist()), reversed(parts.texts), strict=True))
    others = json_rows(table.drop_columns([column]))
    for row, (key, images, cell, record) in enumerate(zip(keys, _images(batch), table[column], others, strict=True)):
        for number, data in enumerate(images):
            if data is not None:
                stem = f"{key}.{number}" if batch.layout.kind == "lists" else key
                yield f"{stem}.{_extension(data)}", data
        if row in first_texts:
            yield f"{key}.txt", first_texts[row].encode()
        reference = _reference(cell.as_py())
        yield f"{key}.json", dump(record if reference is None else {column: reference, **record}).encode()


def _are_from_tar(schema: pa.Schema) -> bool:
    """Whether the rows have the columns of WebDataset pairs, other members of the sample among them."""
    return {"__key__", "members"} <= {*schema.names} and bool(schema.field("members").type == _TAR_MEMBERS)


def _tar_rows(batch: Batch, name: str) -> Iterator[tuple[str, bytes]]:
    """The images of a row, then its other members; columns that did not come from the tar join its JSON."""
    table = visible(batch.table)
    tar_keys = [key or f"{name}-{row:06d}" for row, key in enumerate(table["__key__"].to_pylist())]
    keys = unique(encoded(key) if _UNSAFE.search(key.removeprefix("./")) else key for key in tar_keys)
    others = json_rows(table.select([name for name in table.column_names if name not in _TAR_COLUMNS]))
    rows = zip(tar_keys, keys, _images(batch), table["image"], table["members"], others, strict=True)
    for tar_key, key, images, cell, members, record in rows:
        reference = _reference(cell.as_py())
        paths = reference if isinstance(reference, list) else [reference] * len(images)
        stored = {
            path or f"{tar_key}.{number}.{_extension(data)}": data
            for number, (path, data) in enumerate(zip(paths, images, strict=True))
            if data is not None
        }
        # A link has no content, and what it leads to may not be in this tar.
        stored |= {member["name"]: member["bytes"] for member in members.as_py() or () if member["bytes"] is not None}
        if record:
            stored[f"{tar_key}.json"] = _joined(stored.get(f"{tar_key}.json", b"{}"), record)
        for member, data in stored.items():
            yield _renamed(member, tar_key, key), data


def _joined(text: bytes, record: Mapping[str, Any]) -> bytes:
    """The JSON with more fields; what is no object has no place for them and stays as it is."""
    found = parsed(text)
    return text if found is None else dump(plain({**found, **record})).encode()


def _renamed(member: str, tar_key: str, key: str) -> str:
    """The member's name under another key; what follows the key cannot lead into another folder."""
    ending = member.removeprefix(tar_key) if member.startswith(tar_key) else f".{member}"
    return key + ending.replace("/", "%2F")


def _images(batch: Batch) -> Iterator[list[bytes | None]]:
    """The stored bytes of the images of each row."""
    ends = np.searchsorted(batch.parts.image_rows, np.arange(batch.table.num_rows), side="right").tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        yield [image_bytes(batch, image) for image in range(start, end)]


def _extension(data: bytes) -> str:
    extension, _ = image_type(data) or ("jpg", "")
    return extension


def _reference(cell: Any) -> Any:
    """What is left of an image cell without the bytes: its path; a list of them for a list."""
    match cell:
        case list():
            return [_reference(item) for item in cell]
        case dict():
            return cell.get("path")
        case str() if not cell.startswith("data:"):
            return cell
    return None
