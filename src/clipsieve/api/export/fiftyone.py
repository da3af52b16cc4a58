"""A folder for FiftyOne: ``samples.json``, which ``Dataset.from_json`` imports, and the images that are no files.

An image that is a file of its own stays where it is and is named by its absolute path; one from a tar or a table is
written to ``data/`` as it is stored, and named relative to the folder. Field types are named as FiftyOne's own
``write_json`` names them.
"""

from __future__ import annotations

import json
import mimetypes
import os
from pathlib import Path

import pyarrow as pa

from clipsieve.api.export.places import whole_folder
from clipsieve.api.export.request import Exported, Request, images_of
from clipsieve.api.rows import bytes_of
from clipsieve.core.fetch import ImageSource
from clipsieve.report.words import plural
from clipsieve.writers.cells import image_type

SUFFIX = ""

_FIELDS = "fiftyone.core.fields."


def write(request: Request, path: Path) -> Exported:
    """One JSON file, written sample by sample, and ``data/`` where it is needed."""
    fields = {field.name: _kind(field.type) for field in request.schema}
    head = {"name": request.run.path.resolve().name, "media_type": "image", "sample_fields": fields}
    rows = left_out = 0
    with whole_folder(path) as folder:
        with open(folder / "samples.json", "w", encoding="utf-8") as file:
            file.write(f'{json.dumps(head)[:-1]}, "samples": [')
            for images in images_of(request):
                names = [f"data/{images.shard:05d}/{rows + left_out + i:08d}" for i in range(len(images.sources))]
                files = images.threads.map(lambda source, name: _file(source, folder, name), images.sources, names)
                for row, filepath in zip(images.table.to_pylist(), files, strict=True):
                    if filepath is None:
                        left_out += 1
                        continue
                    # NaN stays NaN, as FiftyOne itself writes it; characters of JSON beyond ASCII are escaped.
                    sample = {"filepath": filepath, "tags": [], "_media_type": "image", **row}
                    file.write(f"{',' if rows else ''}\n{json.dumps(sample)}")
                    rows += 1
            file.write("\n]}\n")
        request.check_some(rows)
    notes = (f"{plural(left_out, 'image')} left out: nothing to read",) if left_out else ()
    return Exported(path=path, rows=rows, notes=notes)


def _kind(type: pa.DataType) -> str:
    """The field that FiftyOne has for a column."""
    if pa.types.is_list(type):
        return f"{_FIELDS}ListField({_kind(type.value_type)})"
    if pa.types.is_struct(type):
        return f"{_FIELDS}DictField"
    if pa.types.is_boolean(type):
        return f"{_FIELDS}BooleanField"
    if pa.types.is_integer(type):
        return f"{_FIELDS}IntField"
    return f"{_FIELDS}FloatField" if pa.types.is_floating(type) else f"{_FIELDS}StringField"


def _file(source: ImageSource, folder: Path, name: str) -> str | None:
    """The file of an image, made when there is none; None when nothing can be read."""
    if place := _own_file(source):
        return place
    data = bytes_of(source)
    if data is None:
        return None
    # FiftyOne tells images by the ending of the name. What is no image all the same shows as broken.
    ending, _ = image_type(data) or ("jpg", "image/jpeg")
    target = folder / f"{name}.{ending}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return f"{name}.{ending}"


def _own_file(source: ImageSource) -> str | None:
    """The absolute path of an image that is one file of this machine with a name that says so."""
    part = any(given is not None for given in (source.data, source.member, source.offset, source.error))
    if part or source.path is None or source.frame:
        return None
    path = source.path.removeprefix("file://")
    kind, _ = mimetypes.guess_type(path)
    return os.path.abspath(path) if (kind or "").startswith("image/") and os.path.isfile(path) else None
