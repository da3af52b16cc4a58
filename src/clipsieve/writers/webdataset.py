"""WebDataset tars: the members of a sample side by side under one key, images with their stored bytes.

A caption row becomes ``KEY.jpg`` (the extension by the first bytes, ``jpg`` when they tell nothing), ``KEY.txt`` and
``KEY.json`` with the other columns; a list row ``KEY.0.jpg``, ``KEY.1.jpg`` and the same; documents are laid out by
``documents``. A sample that came from a tar is written with the members it had.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np

from clipsieve.core.batch import Batch
from clipsieve.core.layout import LayoutKind
from clipsieve.writers.cells import dump, image_bytes, image_type, json_rows, visible
from clipsieve.writers.documents import documents
from clipsieve.writers.keys import encoded, unique


@dataclass(frozen=True, kw_only=True)
class WebDatasetWriter:
    """Writes samples of any layout as a tar; equal batches give equal bytes (no times, no owners).

    The key of a row is its id, percent-encoded with its dots, or the file's name and the row's number
    (``00012-000345``) where it has none; a second sample of the same key becomes ``KEY~2``.
    """

    suffix: ClassVar[str] = ".tar"
    needs_bytes: ClassVar[bool] = True
    layouts: ClassVar[Collection[LayoutKind]] = ("captions", "lists", "interleaved")

    def write(self, batch: Batch, file: BinaryIO, name: str) -> None:
        """One tar; long and non-ASCII member names get PAX headers."""
        members = documents(batch) if batch.layout.kind == "interleaved" else _rows(batch, name)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for member, data in members:
                info = tarfile.TarInfo(member)  # its defaults: mode 0644, owner 0, time 0
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _rows(batch: Batch, name: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the members of each row: its images, its first text, the JSON of its columns."""
    table, parts, column = visible(batch.table), batch.parts, batch.layout.image
    keys = unique(encoded(key) if key else f"{name}-{row:06d}" for row, key in enumerate(parts.sample_ids))
    images = np.searchsorted(parts.image_rows, np.arange(table.num_rows + 1)).tolist()
    first_texts = dict(zip(reversed(parts.text_samples.tolist()), reversed(parts.texts), strict=True))
    others = json_rows(table.drop_columns([column]))
    for row, (key, cell, record) in enumerate(zip(keys, table.column(column), others, strict=True)):
        for number, image in enumerate(range(images[row], images[row + 1])):
            data = image_bytes(batch, image)
            if data is not None:
                extension, _ = image_type(data) or ("jpg", "")
                yield f"{key}.{number}.{extension}" if batch.layout.kind == "lists" else f"{key}.{extension}", data
        if row in first_texts:
            yield f"{key}.txt", first_texts[row].encode()
        reference = _reference(cell.as_py())
        yield f"{key}.json", dump(record if reference is None else {column: reference, **record}).encode()


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
