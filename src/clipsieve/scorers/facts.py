"""Cheap facts: ``width``, ``height``, ``aspect_ratio``, ``file_bytes`` of an image and the ``words`` of a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.scorers.base import OnLists

if TYPE_CHECKING:
    from clipsieve.core.contracts import Needs, Unit


@dataclass(frozen=True, kw_only=True)
class Size(OnLists):
    """Width and height in pixels after EXIF rotation, and width over height; from the header alone."""

    columns: ClassVar[Mapping[str, pa.DataType]] = {
        "width": pa.float64(),
        "height": pa.float64(),
        "aspect_ratio": pa.float64(),
    }
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[Needs] = "bytes"
    cost: ClassVar[float] = 0.02  # ms, benchmarks/pixel_scorers.py

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """float64, so that NaN has a place: for an image whose header cannot be read."""
        sizes = np.array(
            [(math.nan, math.nan) if header is None else (header.width, header.height) for header in batch.headers],
            dtype=np.float64,
        ).reshape(-1, 2)
        width, height = sizes.T
        return {"width": pa.array(width), "height": pa.array(height), "aspect_ratio": pa.array(width / height)}


@dataclass(frozen=True, kw_only=True)
class FileBytes(OnLists):
    """Length of the encoded image as stored, in bytes."""

    columns: ClassVar[Mapping[str, pa.DataType]] = {"file_bytes": pa.float64()}
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[Needs] = "bytes"
    cost: ClassVar[float] = 0.0001  # ms, benchmarks/pixel_scorers.py

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """float64; NaN for an image that cannot be fetched, or that came as pixels. A broken image has its length."""
        lengths = [math.nan if data is None else len(data) for data in batch.bytes]
        return {"file_bytes": pa.array(lengths, pa.float64())}


@dataclass(frozen=True, kw_only=True)
class Words(OnLists):
    """Words of a sample by white space, over all of its texts."""

    columns: ClassVar[Mapping[str, pa.DataType]] = {"words": pa.float64()}
    unit: ClassVar[Unit] = "sample"
    reads: ClassVar[Needs] = "rows"
    cost: ClassVar[float] = 0.001  # ms a row, benchmarks/pixel_scorers.py

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """float64, a count; never NaN."""
        return {"words": pa.array(word_counts(batch), pa.float64())}


def word_counts(batch: Batch) -> npt.NDArray[np.int64]:
    """Words of each sample as ``str.split`` finds them, ``(samples,)``."""
    words = np.fromiter((len(text.split()) for text in batch.parts.texts), np.float64, len(batch.parts.texts))
    return np.bincount(batch.parts.text_samples, weights=words, minlength=batch.samples).astype(np.int64)
