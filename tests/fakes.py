"""What tests put in place of the outside world: images of one colour, and a model that sees only colours."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from clipsieve.core.contracts import Piece, Rows, Shard, SourceCounts, SourceFile
from clipsieve.core.layout import Layout, parts
from clipsieve.core.spread import Spread, in_threads

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "white": (240, 240, 240)}


def image_bytes(colour: str = "red", size: tuple[int, int] = (64, 48), *, sharp: bool = True, seed: int = 0) -> bytes:
    """A PNG of one colour; a sharp one carries noise, so that its blur score is far above 100."""
    pixels = np.full((size[1], size[0], 3), COLOURS[colour], dtype=np.int16)
    if sharp:
        pixels += np.random.default_rng(seed).integers(-19, 20, pixels.shape, dtype=np.int16)
    file = BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


class ColourEncoder:
    """An ``Encoder`` whose space is colour: a red image and the word "red" point the same way."""

    fingerprint = "colours"
    dim = 3
    logit_scale = 100.0
    logit_bias = 0.0
    sigmoid = False

    def __init__(self) -> None:
        self.image_batches: list[int] = []
        self.text_batches: list[Sequence[str]] = []

    def prepare(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.asarray(Image.fromarray(rgb).resize((8, 8)))

    def images(self, prepared: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.image_batches.append(len(prepared))
        return _unit(prepared.reshape(len(prepared), -1, 3).mean(axis=1))

    def windows(self, text: str) -> Sequence[str]:
        words = text.split()
        return [" ".join(words[i : i + 4]) for i in range(0, len(words), 4)] or [text]

    def texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.text_batches.append(list(texts))
        seen = [[COLOURS[word] for word in text.split()[:4] if word in COLOURS] or [(1, 1, 1)] for text in texts]
        return _unit(np.array([np.sum(colours, axis=0) for colours in seen], dtype=np.float64))


def _unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class TableReader:
    """A ``Reader`` of a table in memory, ``rows_a_shard`` rows at a time; rows must be whole samples there."""

    def __init__(self, table: pa.Table, layout: Layout, rows_a_shard: int = 8, errors: dict[int, str] | None = None):
        self.table = table
        self.layout = layout
        self.rows_a_shard = rows_a_shard
        self.errors = errors or {}

    def files(self) -> Sequence[SourceFile]:
        return [SourceFile(path="memory", size=self.table.nbytes, version="1")]

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
        starts = range(0, self.table.num_rows, self.rows_a_shard)
        return [
            Shard(
                number=n, pieces=(Piece(path="memory", start=s, stop=min(s + self.rows_a_shard, self.table.num_rows)),)
            )
            for n, s in enumerate(starts)
        ]

    def read(self, shard: Shard) -> Rows:
        (piece,) = shard.pieces
        errors = {row - piece.start: e for row, e in self.errors.items() if piece.start <= row < piece.stop}
        return Rows(table=self.table.slice(piece.start, piece.stop - piece.start), errors=errors)

    def count(self, spread: Spread = in_threads) -> SourceCounts:
        found = parts(self.table, self.layout, (), self.errors)
        return SourceCounts(samples=len(found.sample_ids), images=len(found.images))
