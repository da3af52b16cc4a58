"""A folder for Hugging Face ``datasets``: Parquet files that ``load_dataset("folder/")`` opens, an image a row.

``image`` holds the bytes as they are stored in the source; nothing is encoded again.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.api.export.places import whole_folder
from clipsieve.api.export.request import Exported, Images, Request, images_of
from clipsieve.core.fetch import ImageSource
from clipsieve.errors import OutputError
from clipsieve.report.words import plural

SUFFIX = ""

GROUP = 2**30
"""Bytes from which on a row group is closed early."""


def write(request: Request, path: Path) -> Exported:
    """A file for each shard of the run that has chosen images, so that no more than some images are in memory."""
    schema = _schema(request.schema)
    rows = unreadable = 0
    file: pq.ParquetWriter | None = None
    shard = -1
    with whole_folder(path) as folder:
        try:
            for images in images_of(request):
                if images.shard != shard:
                    if file is not None:
                        file.close()
                    shard = images.shard
                    # A name that datasets takes for the split "train".
                    file = pq.ParquetWriter(folder / f"train-{shard:05d}.parquet", schema, compression="zstd")
                assert file is not None
                for table in _tables(images, schema):
                    file.write_table(table)
                    rows += table.num_rows
                    unreadable += table["image"].null_count
            request.check_some(rows)
        finally:
            if file is not None:
                file.close()
    notes = (f"{plural(unreadable, 'image')} unreadable: `image` is null",) if unreadable else ()
    return Exported(path=path, rows=rows, notes=notes)


def _schema(told: pa.Schema) -> pa.Schema:
    """The columns with what ``datasets`` notes of them: that ``image`` is a picture."""
    try:
        from datasets import Features, Image
    except ImportError:
        raise OutputError("an export to datasets needs the library: pip install 'clipsieve[export]'") from None
    schema: pa.Schema = Features({"image": Image(), **Features.from_arrow_schema(told)}).arrow_schema
    return schema


def _tables(images: Images, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of some images with their bytes, in as many tables as Arrow needs: one holds less than 2 GB of them."""
    data = images.bytes()
    pictures = [
        None if read is None else {"bytes": read, "path": _name(source)}
        for read, source in zip(data, images.sources, strict=True)
    ]
    groups = np.cumsum([len(read or b"") for read in data]) // GROUP
    for some in np.split(np.arange(len(data)), np.flatnonzero(np.diff(groups)) + 1):
        bytes_ = pa.array([pictures[i] for i in some], schema.field("image").type)
        yield pa.Table.from_arrays([bytes_, *images.table.take(pa.array(some)).columns], schema=schema)


def _name(source: ImageSource) -> str | None:
    """The name of the file or member, as ``datasets`` has it beside the bytes; it never is a path to read."""
    place = source.member or source.path
    return posixpath.basename(place) if place else None
