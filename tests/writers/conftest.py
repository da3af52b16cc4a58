"""Rows in, the bytes of one file out: what every writer test needs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Rows, Writer
from clipsieve.core.layout import Layout


@pytest.fixture
def picture() -> Callable[[str, int], bytes]:
    """Encodes a tiny grey image: ``picture("PNG", 7)``."""

    def encode(format: str, grey: int = 0) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (2, 2), (grey, grey, grey)).save(file, format)
        return file.getvalue()

    return encode


@pytest.fixture
def written() -> Callable[..., bytes]:
    """The file that a writer makes of a table's rows."""

    def write(writer: Writer, table: pa.Table, layout: Layout, name: str = "00000", **rows: Any) -> bytes:
        file = io.BytesIO()
        writer.write(Batch.from_rows(Rows(table=table, **rows), layout), file, name)
        assert not file.closed
        return file.getvalue()

    return write
