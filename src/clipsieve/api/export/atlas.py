"""A Parquet file for embedding-atlas: points in the plane, neighbours, thumbnails, captions and scores.

Columns beside those of every export: ``x`` and ``y``, ``neighbors`` (``ids``, rows of this file from 0 on, and
``distances``, 1 - cosine) and ``image``, a thumbnail.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.api.added import ledger_part
from clipsieve.api.export.places import whole_file
from clipsieve.api.export.projection import Projection, project
from clipsieve.api.export.request import Exported, Images, Request, images_of
from clipsieve.api.rows import thumbnail_of
from clipsieve.core.layout import Mask
from clipsieve.errors import OutputError
from clipsieve.report.words import plural
from clipsieve.runfolder import RunFolder

SUFFIX = ".parquet"

_DRAWN = pa.schema(
    [
        pa.field("x", pa.float32()),
        pa.field("y", pa.float32()),
        pa.field("neighbors", pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])),
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ]
)


def write(request: Request, path: Path) -> Exported:
    """One file with the chosen images that have a vector."""
    wanted, without = _with_vector(request)
    if not any(mask.any() for mask in wanted.values()):
        request.check_some(without)
        raise OutputError(f"{request.run.path} has no vector of any of the {without:,} images to export")
    vectors = np.concatenate([request.run.vectors(shard)[mask] for shard, mask in wanted.items()])
    drawn = project(vectors, request.progress)
    schema = pa.schema([*_DRAWN, *request.schema])
    rows = unreadable = 0
    with whole_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as table:
        for images in images_of(request, lambda shard, _: wanted[shard]):
            part = _rows(images, drawn, rows, schema)
            table.write_table(part)
            rows += part.num_rows
            unreadable += part["image"].null_count
    notes = [f"{plural(without, 'image')} left out: no vector in the run"] if without else []
    notes += [f"{plural(unreadable, 'image')} unreadable: `image` is null"] if unreadable else []
    return Exported(path=path, rows=rows, notes=tuple(notes))


def _with_vector(request: Request) -> tuple[dict[int, Mask], int]:
    """For each shard which of its ledger rows are chosen images with a vector, and how many have none."""
    folder, wanted, without = RunFolder(request.run.path), {}, 0
    for shard in request.run.shards():
        vectors = request.run.vectors(shard.number)
        chosen = request.chosen_images(ledger_part(folder, shard.number))
        if len(chosen) != len(vectors):
            raise OutputError(
                f"{folder.vectors(shard.number, 'image')} does not go with the ledger: the run is damaged"
            )
        wanted[shard.number] = chosen & ~np.isnan(vectors[:, 0])
        without += int(chosen.sum() - wanted[shard.number].sum())
    return wanted, without


def _rows(images: Images, drawn: Projection, start: int, schema: pa.Schema) -> pa.Table:
    """Some rows of the file, from ``start`` on."""
    part = slice(start, start + images.table.num_rows)
    small = images.threads.map(thumbnail_of, images.sources, images.bytes())
    neighbours = [
        {"ids": ids, "distances": distances}
        for ids, distances in zip(drawn.neighbours[part].tolist(), drawn.distances[part].tolist(), strict=True)
    ]
    pictures = [None if jpeg is None else {"bytes": jpeg, "path": None} for jpeg in small]
    columns = [
        pa.array(drawn.points[part, 0]),
        pa.array(drawn.points[part, 1]),
        pa.array(neighbours, _DRAWN.field("neighbors").type),
        pa.array(pictures, _DRAWN.field("image").type),
    ]
    return pa.Table.from_arrays([*columns, *images.table.columns], schema=schema)
