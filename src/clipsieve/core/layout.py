"""From rows to samples with their images and texts, and from a keep mask back to rows.

A layout says how samples sit in the rows of a table: ``captions`` (one image and its text a row),
``lists`` (a list of images a row) or ``interleaved`` (a row a part, adjacent rows of one ``sample_id``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.fetch import ImageSource, from_cell, from_part
from clipsieve.core.ranges import is_http

if TYPE_CHECKING:
    from clipsieve.core.urls import FetchPolicy

LayoutKind: TypeAlias = Literal["captions", "lists", "interleaved"]
InvalidRows: TypeAlias = Literal["keep", "drop"]
Mask: TypeAlias = npt.NDArray[np.bool_]

INTERLEAVED_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("position", pa.int32()),
        ("modality", pa.string()),
        ("content_type", pa.string()),
        ("text_content", pa.string()),
        ("binary_content", pa.large_binary()),
        ("source_ref", pa.string()),
        ("materialize_error", pa.string()),
    ]
)
"""The columns of interleaved rows; others pass through."""

MODALITIES = ("text", "image", "metadata", "table")
"""The modalities of interleaved rows that are known; ``table`` is content that nothing here looks into."""

SCORE = {b"clipsieve": b"score"}
"""Metadata of a score column's field, by which a writer tells it from the source's own columns."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How samples sit in rows.

    ``image``, ``texts`` and ``sample_id`` name columns of ``captions`` and ``lists`` rows (a text column may
    hold a string or a list of strings); interleaved rows have the names of ``INTERLEAVED_SCHEMA``. ``root`` is
    the folder of relative image paths; None means the folder of the file that names them. ``invalid_rows`` says
    what becomes of interleaved rows of an unknown modality, metadata not at position -1 and content before position 0;
    ``fetch`` how images by URL are fetched, None that they are not.
    """

    kind: LayoutKind
    image: str = "image"
    texts: tuple[str, ...] = ()
    sample_id: str | None = None
    root: str | None = None
    invalid_rows: InvalidRows = "keep"
    fetch: FetchPolicy | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """Where the samples, images and texts of some rows are. Samples are in row order, images and texts by sample."""

    sample_ids: Sequence[str | None]
    sample_rows: npt.NDArray[np.int64]
    """First row of each sample, ``(samples,)``."""
    row_samples: npt.NDArray[np.int64]
    """Sample of each row, ``(rows,)``."""
    images: Sequence[ImageSource]
    image_rows: npt.NDArray[np.int64]
    image_samples: npt.NDArray[np.int64]
    image_numbers: npt.NDArray[np.int64]
    """Number of each image within its sample, from 0."""
    texts: Sequence[str]
    """Texts that are not blank."""
    text_rows: npt.NDArray[np.int64]
    surplus: Mask | None = None
    """Rows that go whatever becomes of their sample, ``(rows,)``; None for no rows."""

    @cached_property
    def text_samples(self) -> npt.NDArray[np.int64]:
        """Sample of each text."""
        return self.row_samples[self.text_rows]

    @property
    def surplus_images(self) -> Mask:
        """Which images stand in surplus rows, ``(images,)``."""
        if self.surplus is None:
            return np.zeros(len(self.images), dtype=bool)
        return self.surplus[self.image_rows]

    def without(self, rows: Mask) -> Parts:
        """The parts when ``rows`` ``(rows,)`` are surplus too."""
        spoken = ~rows[self.text_rows]
        return replace(
            self,
            texts=[text for text, keep in zip(self.texts, spoken.tolist(), strict=True) if keep],
            text_rows=self.text_rows[spoken],
            surplus=rows if self.surplus is None else rows | self.surplus,
        )

    def fetched(self, policy: FetchPolicy | None, kept: str | None) -> Parts:
        """The parts with images by URL as ``policy`` says and, where they are there, from the file ``kept``."""
        return replace(
            self,
            images=[replace(image, policy=policy, kept=kept) if image.by_url else image for image in self.images],
        )


def parts(
    table: pa.Table,
    layout: Layout,
    origins: Sequence[tuple[int, str]] = (),
    errors: Mapping[int, str] | None = None,
    starts: Sequence[int] | None = None,
    kept: str | None = None,
) -> Parts:
    """Finds the parts of whole samples in ``table``; ``origins``, ``errors``, ``starts`` and ``kept`` as in ``Rows``.

    A row that could not be parsed counts as one image that cannot be read.
    """
    if layout.kind == "interleaved":
        found = _interleaved_parts(table, layout, origins, starts)
    else:
        found = _row_parts(table, layout, origins, errors or {})
    return found if layout.fetch is None else found.fetched(layout.fetch, kept)


def _row_parts(table: pa.Table, layout: Layout, origins: Sequence[tuple[int, str]], errors: Mapping[int, str]) -> Parts:
    rows = np.arange(table.num_rows, dtype=np.int64)
    roots = _roots(table.num_rows, layout, origins)
    cells = _image_values(table.column(layout.image))
    images: list[ImageSource] = []
    counts = np.ones(table.num_rows, dtype=np.int64)
    for row, (cell, root) in enumerate(zip(cells, roots, strict=True)):
        if row in errors:
            images.append(ImageSource(error=errors[row]))
        elif layout.kind == "captions":
            images.append(from_cell(cell, root))
        else:
            listed = cell if isinstance(cell, list) else [] if cell is None else [cell]
            counts[row] = len(listed)
            images.extend(from_cell(item, root) for item in listed)
    texts, text_rows = _row_texts(table, layout)
    return Parts(
        sample_ids=_ids(table, layout.sample_id),
        sample_rows=rows,
        row_samples=rows,
        images=images,
        image_rows=np.repeat(rows, counts),
        image_samples=np.repeat(rows, counts),
        image_numbers=numbers(counts),
        texts=texts,
        text_rows=text_rows,
    )


def _row_texts(table: pa.Table, layout: Layout) -> tuple[list[str], npt.NDArray[np.int64]]:
    texts: list[str] = []
    rows: list[int] = []
    columns = [table.column(name).to_pylist() for name in layout.texts]
    for row, cells in enumerate(zip(*columns, strict=True)):
        for cell in cells:
            for text in cell if isinstance(cell, list) else (cell,):
                if isinstance(text, str) and text.strip():
                    texts.append(text)
                    rows.append(row)
    return texts, np.array(rows, dtype=np.int64)


def _interleaved_parts(
    table: pa.Table, layout: Layout, origins: Sequence[tuple[int, str]], starts: Sequence[int] | None
) -> Parts:
    ids = table.column("sample_id").combine_chunks()
    modality = table.column("modality")
    row_samples = sample_runs(ids)
    if starts is not None:
        row_samples = np.searchsorted(np.array(starts), np.arange(table.num_rows), side="right").astype(np.int64) - 1
    sample_rows = np.flatnonzero(np.diff(row_samples, prepend=-1)).astype(np.int64)
    image_rows = _where(pc.equal(modality, "image"))
    roots = _roots(table.num_rows, layout, origins)
    data = _buffers(table.column("binary_content"))
    cells = (table.column(name).take(pa.array(image_rows)).to_pylist() for name in ("source_ref", "materialize_error"))
    image_samples = row_samples[image_rows]
    text_rows = _where(pc.equal(modality, "text"))
    texts = table.column("text_content").take(pa.array(text_rows)).to_pylist()
    spoken = [bool(text and text.strip()) for text in texts]
    found = Parts(
        sample_ids=ids.take(pa.array(sample_rows)).to_pylist(),
        sample_rows=sample_rows,
        row_samples=row_samples,
        images=[
            from_part(data[row], reference, error, roots[row])
            for row, reference, error in zip(image_rows.tolist(), *cells, strict=True)
        ],
        image_rows=image_rows,
        image_samples=image_samples,
        image_numbers=numbers(np.bincount(image_samples, minlength=len(sample_rows))),
        texts=[text for text, keep in zip(texts, spoken, strict=True) if keep],
        text_rows=text_rows[np.array(spoken, dtype=bool)],
    )
    return _without_invalid(table, found) if layout.invalid_rows == "drop" else found


def invalid(table: pa.Table) -> Mask:
    """The interleaved rows that no document can have, ``(rows,)``: of an unknown modality, metadata that is not at
    position -1, and content before position 0 or without one."""
    modality = table.column("modality").combine_chunks()
    known, metadata = (
        pc.fill_null(test, False).to_numpy(zero_copy_only=False)
        for test in (pc.is_in(modality, pa.array(MODALITIES)), pc.equal(modality, "metadata"))
    )
    positions = pc.fill_null(table.column("position"), -2).to_numpy()
    found: Mask = ~known | np.where(metadata, positions != -1, positions < 0)
    return found


def _without_invalid(table: pa.Table, found: Parts) -> Parts:
    """The parts of rows some of which are invalid: those are surplus, and an image in one is not read."""
    gone = invalid(table)
    images = list(found.images)
    for image in np.flatnonzero(gone[found.image_rows]).tolist():
        row = int(found.image_rows[image])
        at = table.column("position")[row].as_py()
        where = "without a position" if at is None else f"at position {at}"
        images[image] = ImageSource(path=images[image].path, error=f"invalid row: an image {where}")
    return replace(found, images=images).without(gone)


def _image_values(cells: pa.ChunkedArray) -> list[Any]:
    """The cells of an image column as ``from_cell`` takes them."""
    if _is_binary(cells.type):
        return _buffers(cells)
    if pa.types.is_struct(cells.type) and "bytes" in cells.type.names and _is_binary(cells.type.field("bytes").type):
        data = _buffers(pc.struct_field(cells, "bytes"))
        others = [name for name in ("path", "error") if name in cells.type.names]
        columns = [data, *(pc.struct_field(cells, name).to_pylist() for name in others)]
        return [dict(zip(["bytes", *others], values, strict=True)) for values in zip(*columns, strict=True)]
    return list(cells.to_pylist())


def _is_binary(type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def _buffers(cells: pa.ChunkedArray) -> list[pa.Buffer | None]:
    """Binary cells as slices of the column's own memory: the images of a shard are not held twice."""
    found: list[pa.Buffer | None] = []
    for chunk in cells.cast(pa.large_binary()).chunks:
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        valid = chunk.is_valid().to_pylist()
        found += [data[start:end] if there else None for there, start, end in zip(valid, ends, ends[1:], strict=False)]
    return found


def sample_runs(ids: pa.Array) -> npt.NDArray[np.int64]:
    """Numbers adjacent equal ids from 0: ``a a b`` gives ``0 0 1``; ``(rows,)`` int64."""
    if len(ids) == 0:
        return np.zeros(0, dtype=np.int64)
    codes = pc.dictionary_encode(pc.fill_null(ids, "")).indices.to_numpy(zero_copy_only=False)
    return np.cumsum(np.diff(codes, prepend=codes[:1]) != 0).astype(np.int64)


def _roots(rows: int, layout: Layout, origins: Sequence[tuple[int, str]]) -> list[str]:
    if layout.root is not None or not origins:
        return [layout.root or ""] * rows
    ends = [start for start, _ in origins[1:]] + [rows]
    return [root for (start, path), end in zip(origins, ends, strict=True) for root in [_folder(path)] * (end - start)]


def _folder(path: str) -> str:
    """The folder that a file is in. The query of a URL of the web, such as a signature, is no part of it and may hold
    slashes."""
    return (re.split("[?#]", path)[0] if is_http(path) else path).rpartition("/")[0]


def _ids(table: pa.Table, column: str | None) -> list[str | None]:
    if column is None:
        return [None] * table.num_rows
    return [None if value is None else str(value) for value in table.column(column).to_pylist()]


def _where(mask: Any) -> npt.NDArray[np.int64]:
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)).astype(np.int64)


def numbers(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, ... within each of ``counts``."""
    starts = np.cumsum(counts) - counts
    return np.arange(int(counts.sum()), dtype=np.int64) - np.repeat(starts, counts)


def has_text_rows(table: pa.Table, layout: Layout, parts: Parts) -> Mask:
    """Which samples would still hold content without any image, ``(samples,)``.

    A text or table row of an interleaved document is content; a caption is not: it goes with its image.
    """
    held = np.zeros(len(parts.sample_ids), dtype=bool)
    if layout.kind == "interleaved":
        rows = _where(pc.is_in(table.column("modality"), pa.array(["text", "table"])))
        held[parts.row_samples[rows if parts.surplus is None else rows[~parts.surplus[rows]]]] = True
    return held


def kept_rows(found: Parts, keep_images: Mask, keep_samples: Mask, layout: Layout) -> Mask:
    """The rows of what stays, ``(rows,)``: in documents those of dropped images go, elsewhere a sample is one row."""
    rows: Mask = keep_samples[found.row_samples]
    if found.surplus is not None:
        rows &= ~found.surplus
    if layout.kind == "interleaved":
        rows[found.image_rows[~keep_images]] = False
    return rows


def keep_rows(
    table: pa.Table, layout: Layout, found: Parts, keep_images: Mask, keep_samples: Mask
) -> tuple[pa.Table, Parts]:
    """The rows of what stays and its parts: ``keep_images`` ``(images,)`` and ``keep_samples`` ``(samples,)``.

    Interleaved documents lose the rows of dropped images and their positions are numbered anew; in ``lists``
    rows the image list is shortened; everything else passes through untouched.
    """
    rows = kept_rows(found, keep_images, keep_samples, layout)
    images = keep_images & keep_samples[found.image_samples]
    texts = keep_samples[found.text_samples]
    if layout.kind == "interleaved":
        table = renumbered(table.filter(pa.array(rows)), found.row_samples[rows])
    else:
        if layout.kind == "lists" and not images[keep_samples[found.image_samples]].all():
            table = _shortened(table, layout.image, found, images)
        table = table.filter(pa.array(rows))
    new_rows, new_samples = np.cumsum(rows) - 1, np.cumsum(keep_samples) - 1
    row_samples = new_samples[found.row_samples[rows]]
    image_samples = new_samples[found.image_samples[images]]
    kept = Parts(
        sample_ids=[found.sample_ids[s] for s in np.flatnonzero(keep_samples).tolist()],
        sample_rows=np.flatnonzero(np.diff(row_samples, prepend=-1)).astype(np.int64),
        row_samples=row_samples,
        images=[found.images[i] for i in np.flatnonzero(images).tolist()],
        image_rows=new_rows[found.image_rows[images]],
        image_samples=image_samples,
        image_numbers=numbers(np.bincount(image_samples, minlength=int(keep_samples.sum()))),
        texts=[found.texts[t] for t in np.flatnonzero(texts).tolist()],
        text_rows=new_rows[found.text_rows[texts]],
    )
    return table, kept


def _shortened(table: pa.Table, column: str, parts: Parts, keep_images: Mask) -> pa.Table:
    """The table with the dropped images taken out of their lists; null lists, and types, stay as they are."""
    index = table.schema.get_field_index(column)
    field = table.schema.field(index)
    if not pa.types.is_list(field.type) and not pa.types.is_large_list(field.type):
        return _emptied(table, index, parts, keep_images)
    lists = table.column(index).combine_chunks()
    # The one image of a row that could not be parsed stands for a null cell, not for an item of a list.
    listed = pc.is_valid(lists).to_numpy(zero_copy_only=False)[parts.image_rows]
    kept = keep_images & listed
    ends = np.cumsum(np.bincount(parts.image_rows[kept], minlength=table.num_rows))
    array, offset = (
        (pa.LargeListArray, pa.int64()) if pa.types.is_large_list(field.type) else (pa.ListArray, pa.int32())
    )
    shorter = array.from_arrays(
        pa.array([0, *ends], offset),
        lists.flatten().filter(pa.array(kept[listed])),
        type=field.type,
        mask=lists.is_null(),
    )
    return table.set_column(index, field, shorter)


def _emptied(table: pa.Table, index: int, parts: Parts, keep_images: Mask) -> pa.Table:
    """The same for a column of single images in place of lists: the cell of a dropped one becomes null."""
    stays = np.ones(table.num_rows, dtype=bool)
    stays[parts.image_rows[~keep_images]] = False
    column = table.column(index)
    cells = pc.if_else(pa.array(stays), column, pa.nulls(table.num_rows, column.type))
    return table.set_column(index, table.schema.field(index), cells)


def renumbered(table: pa.Table, row_samples: npt.NDArray[np.int64]) -> pa.Table:
    """Interleaved rows with the positions of each sample's content counted 0, 1, ...; metadata stays at -1.

    ``row_samples`` ``(rows,)`` tells samples apart: equal ids may have become neighbours.
    """
    content = ~pc.fill_null(pc.equal(table.column("modality"), "metadata"), False).to_numpy(zero_copy_only=False)
    positions = np.full(table.num_rows, -1, dtype=np.int32)
    positions[content] = numbers(np.bincount(row_samples[content]))
    index = table.schema.get_field_index("position")
    return table.set_column(index, table.schema.field(index), pa.array(positions, type=table.schema.field(index).type))


def embedded(
    table: pa.Table, parts: Parts, images: Sequence[bytes | None], errors: Mapping[int, str] | None = None
) -> pa.Table:
    """Interleaved rows with the bytes of their ``images`` in ``binary_content``, one item an image.

    An image without bytes keeps its row, with its error in ``materialize_error``.
    """
    for name, found in (("binary_content", images), ("materialize_error", _each(errors or {}, len(images)))):
        place = table.schema.get_field_index(name)
        cells: list[Any] = [None] * table.num_rows
        for row, cell in zip(parts.image_rows.tolist(), found, strict=True):
            cells[row] = cell
        field = table.schema.field(place)
        column = pc.coalesce(table.column(place), pa.array(cells, field.type))
        table = table.set_column(place, field, column)
    return table


def _each(errors: Mapping[int, str], images: int) -> list[str | None]:
    return [errors.get(image) for image in range(images)]


def add_scores(
    table: pa.Table, layout: Layout, parts: Parts, images: Mapping[str, pa.Array], samples: Mapping[str, pa.Array]
) -> pa.Table:
    """The rows with score columns behind the others: ``images`` has one value an image, ``samples`` one a sample.

    An image's value stands in its row (null in the text rows of a document); in ``lists`` rows the values of a
    row's images make a list. A sample's value stands in all of its rows. A column of the same name is replaced.
    """
    cells = {name: _image_cells(values, table.num_rows, layout, parts) for name, values in images.items()}
    cells |= {name: values.take(pa.array(parts.row_samples)) for name, values in samples.items()}
    table = table.drop_columns([name for name in cells if name in table.column_names])
    for name, column in cells.items():
        table = table.append_column(pa.field(name, column.type, metadata=SCORE), column)
    return table


def _image_cells(values: pa.Array, rows: int, layout: Layout, parts: Parts) -> pa.Array:
    if layout.kind == "lists":
        ends = np.cumsum(np.bincount(parts.image_rows, minlength=rows))
        return pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), values)
    image = np.full(rows, -1, dtype=np.int64)
    image[parts.image_rows] = np.arange(len(parts.images))
    return values.take(pa.array(image, mask=image < 0))
