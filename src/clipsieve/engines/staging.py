"""What the first pass leaves for the second: the survivors' rows and bytes, shard by shard, in the run folder.

Where they are not there (any more), the second pass takes both from the source again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipsieve.core import storage
from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Rows
from clipsieve.core.layout import Mask
from clipsieve.engines.bytestore import FileBytes
from clipsieve.engines.reread import SourceBytes
from clipsieve.runfolder import atomic, read_table, undamaged, write_table

if TYPE_CHECKING:
    from clipsieve.core.contracts import Reader, Shard


def stage(folder: Path, kept: Batch, *, needs_bytes: bool) -> None:
    """Puts what stays of a shard into ``folder``, the bytes only where the writer will need them."""
    # A row that could not be parsed is one failed image, which its cells alone do not tell.
    images_of_row = np.bincount(kept.parts.image_rows, minlength=kept.table.num_rows)
    unparsed = {
        row: error
        for image, error in kept.errors.items()
        if kept.parts.images[image].error == error and images_of_row[row := int(kept.parts.image_rows[image])] == 1
    }
    write_table(folder / "rows.parquet", kept.table)
    sizes = []
    if needs_bytes:
        with atomic(folder / "bytes") as file:  # one image after the other: never all of them in memory
            for image, source in enumerate(kept.parts.images):
                fetched = kept.bytes[image] if source.data is None else None
                sizes.append(file.write(fetched or b""))
    with atomic(folder / "staged.json") as file:
        about = {"starts": kept.parts.sample_rows.tolist(), "unparsed": unparsed, "sizes": sizes}
        file.write(json.dumps(about).encode())


@contextmanager
def staged(
    folder: Path, reader: Reader, shard: Shard, images: Mask, samples: Mask, errors: Mapping[int, str]
) -> Iterator[Batch]:
    """The survivors of a shard, from ``folder`` or from the source; their bytes can be read until the block ends.

    ``images`` and ``samples`` mark them among those of the source, ``errors`` says which of them failed and why.
    """
    if not storage.exists(folder / "staged.json"):
        kept = Batch.from_rows(reader.read(shard), reader.layout).kept(images, samples)
        kept.errors = dict(errors)
        kept.bytes = SourceBytes(kept.parts.images, errors)
        yield kept
        return
    with undamaged(folder, "remove what is left of it and run the same command again"):
        about = json.loads(storage.read(folder / "staged.json"))
        unparsed = {int(row): error for row, error in about["unparsed"].items()}
        rows = Rows(table=read_table(folder / "rows.parquet"), errors=unparsed, starts=about["starts"])
    kept = Batch.from_rows(rows, reader.layout)
    kept.errors = dict(errors)
    if not about["sizes"]:
        yield kept
        return
    with storage.streamed(folder / "bytes") as file:
        kept.bytes = FileBytes(file, about["sizes"], kept.parts.images)
        yield kept
