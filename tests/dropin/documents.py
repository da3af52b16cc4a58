"""Interleaved documents for the tests of NeMo Curator's stages, written as they read."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zxingcpp
from PIL import Image

from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.dropin.nemo_curator import InterleavedBatch
from tests.fakes import image_bytes

RED, GREEN, BLUE = (image_bytes(colour) for colour in ("red", "green", "blue"))
FLAT = image_bytes("red", sharp=False)
WORDS = "red " * 50

Row = tuple[str, int, str, dict[str, Any]]


def text(sample: str, position: int, said: str | None = WORDS) -> Row:
    return sample, position, "text", {"text_content": said, "content_type": "text/plain"}


def image(sample: str, position: int, data: bytes | None = RED, **cells: Any) -> Row:
    return sample, position, "image", {"binary_content": data, "content_type": "image/png", **cells}


def at(sample: str, position: int, **reference: Any) -> Row:
    """An image that is somewhere else."""
    return image(
        sample, position, None, source_ref=json.dumps({k: str(v) if k == "path" else v for k, v in reference.items()})
    )


def metadata(sample: str, position: int = -1, **cells: Any) -> Row:
    return sample, position, "metadata", cells


def table(*rows: Row) -> pa.Table:
    found = [{"sample_id": s, "position": p, "modality": m, **cells} for s, p, m, cells in rows]
    others = {name for row in found for name in row} - set(INTERLEAVED_SCHEMA.names)
    schema = pa.schema([*INTERLEAVED_SCHEMA, *((name, pa.string()) for name in sorted(others))])
    return pa.Table.from_pylist(found, schema=schema)


def batch(*rows: Row) -> InterleavedBatch:
    return InterleavedBatch(task_id="t", dataset_name="d", data=table(*rows))


def raw(folder: Path, *rows: Row, name: str = "raw/a.parquet") -> Path:
    """A Parquet file of rows."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table(*rows), path)
    return path


def places(rows: pa.Table) -> list[tuple[str, int, str]]:
    """Document, position and modality of each row."""
    return [tuple(row.values()) for row in rows.select(["sample_id", "position", "modality"]).to_pylist()]


def pictures(rows: pa.Table) -> list[bytes]:
    """The bytes of the images, in order."""
    return [row["binary_content"] for row in rows.to_pylist() if row["modality"] == "image"]


def with_codes(*sides: int) -> bytes:
    """A page of 400 x 300 with a QR code of each size, in pixels, beside each other."""
    page = np.random.default_rng(0).integers(215, 256, (300, 400, 3), dtype=np.uint8)
    left = 10
    for side in sides:
        code = zxingcpp.create_barcode("clipsieve", zxingcpp.BarcodeFormat.QRCodeModel2)
        made = cv2.resize(
            np.array(code.to_image(scale=1, add_quiet_zones=False)), (side, side), interpolation=cv2.INTER_NEAREST
        )
        page[8 : side + 28, left : left + side + 20] = 255
        page[18 : 18 + side, left + 10 : left + 10 + side] = made[..., None]
        left += side + 30
    return encoded(Image.fromarray(page))


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
