"""The seams of Clipsieve: what a reader, a writer, a scorer and an encoder promise.

Everything above this floor is written against these protocols, so each can be replaced in a test
or by a user's own class. Arrays are NumPy or Arrow; their shapes are given with each name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.core.embed import Prompt
from clipsieve.core.layout import Layout, LayoutKind
from clipsieve.core.spread import Spread, in_threads

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""An RGB image, ``(height, width, 3)``, or a stack of prepared ones, ``(n, height, width, 3)``; uint8."""

Vectors: TypeAlias = npt.NDArray[np.float32]
"""``(n, dim)`` float32, each row of unit length; a row of NaN where there is no vector."""

Unit: TypeAlias = Literal["image", "pair", "sample"]
Needs: TypeAlias = Literal["rows", "bytes", "pixels", "vectors"]
VectorsOf: TypeAlias = Literal["image", "text"]

LINE = "__line__"
"""Hidden column: the source's own text of a row (JSON lines), so that it can be written back unchanged."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of the source as it was when the run began.

    ``version`` is its etag or modification time: a file whose size or version has changed since is refused.
    """

    path: str
    size: int
    version: str


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of one source file: ``[start, stop)`` in the reader's own unit (rows or bytes), ``rows`` long."""

    path: str
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Whole samples of the source, bounded in size; read, committed and retried as one."""

    number: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a shard.

    ``origins`` gives, for each piece, the first row that came from it and its file: relative image paths are
    relative to that file's folder. ``errors`` holds the rows that could not be parsed (their cells are null)
    with the reason, which becomes the row's verdict. ``starts`` holds the first row of each document where ids alone
    do not tell: rows of equal ids have become neighbours. ``kept`` is a file of the images by URL among them that were
    fetched before, where there is one.
    """

    table: pa.Table
    origins: tuple[tuple[int, str], ...] = ()
    errors: Mapping[int, str] = field(default_factory=dict)
    starts: Sequence[int] | None = None
    kept: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceCounts:
    """How many samples and images a source holds."""

    samples: int
    images: int

    @classmethod
    def total(cls, counts: Iterable[SourceCounts]) -> SourceCounts:
        """Those of several files together."""
        every = list(counts)
        return cls(samples=sum(one.samples for one in every), images=sum(one.images for one in every))


class Reader(Protocol):
    """Turns files into shards, and a shard into rows. Reading a shard twice gives equal rows."""

    layout: Layout

    def files(self) -> Sequence[SourceFile]:
        """The source's files in reading order."""
        ...

    def shards(self, spread: Spread = in_threads) -> Sequence[Shard]:
        """Whole samples each, in reading order, numbered from 0; together they are the source, once.

        Where that takes reading the files, ``spread`` reads them.
        """
        ...

    def read(self, shard: Shard) -> Rows:
        """The rows of one shard. Raises ``SourceError`` when a file cannot be read at all."""
        ...

    def count(self, spread: Spread = in_threads) -> SourceCounts:
        """Counts the source by another way than through its shards, to hold the run's counts against."""
        ...


class Writer(Protocol):
    """Writes whole samples into one file: equal batches give equal bytes, and no image is encoded anew.

    ``needs_bytes`` says whether ``batch.bytes`` is read; the others leave paths as paths.
    """

    suffix: ClassVar[str]
    needs_bytes: ClassVar[bool]
    layouts: ClassVar[tuple[LayoutKind, ...]]

    def write(self, batch: Batch, file: BinaryIO, name: str) -> None:
        """Writes all rows of ``batch.table`` (already only the kept ones) to an open binary file.

        ``name`` is the file's name without its suffix (``00012``), no other file of the output has it: samples
        without an id get their keys from it.
        """
        ...


@runtime_checkable
class JoiningWriter(Writer, Protocol):
    """A writer whose files can become one."""

    def join(self, parts: Sequence[Path], file: BinaryIO) -> None:
        """Writes the rows of the files ``parts``, in order, to an open binary file."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Turns a batch into columns, one value a unit; NaN where it cannot be scored.

    ``reads`` is what must be ready before it runs, ``cost`` its rough milliseconds an image (a row, where it reads
    rows), which order the plan; ``why_missing`` says in the reason of a drop why a value is NaN.
    """

    columns: ClassVar[Mapping[str, pa.DataType]]
    unit: ClassVar[Unit]
    reads: ClassVar[Needs]
    cost: ClassVar[float]
    why_missing: ClassVar[str]

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """One value a unit of ``batch``: an image, a pair (``batch.pairs``) or a sample."""
        ...


@runtime_checkable
class PromptedScorer(Scorer, Protocol):
    """A scorer that holds images against prompts of its own, which the engine embeds once a run: see
    ``Batch.prompted``."""

    @property
    def prompts(self) -> Sequence[Prompt]: ...

    @property
    def choices(self) -> Mapping[str, Sequence[str]]:
        """For each text column all that it can say; a rule that asks for anything else is refused."""
        ...


@runtime_checkable
class DatasetScorer(Protocol):
    """Turns the vectors of a whole data set into columns, one value an image; NaN where it cannot be scored.

    ``reads`` says whose vectors it needs, of the images, or of each image's best-matching text too.
    """

    columns: ClassVar[Mapping[str, pa.DataType]]
    unit: ClassVar[Unit]
    reads: ClassVar[tuple[VectorsOf, ...]]
    why_missing: ClassVar[str]

    def score(
        self, vectors: Sequence[Vectors], progress: Callable[[int, int], None] | None = None
    ) -> Mapping[str, pa.Array]:
        """``vectors`` are those that it ``reads``, in that order and row for row; they may be memory-mapped.

        ``progress`` is called with the steps that are done and their total.
        """
        ...


class Filter(Protocol):
    """A user's own rule, in Python, over what the recipe's rules leave.

    One that never looks at ``batch.bytes`` may have an attribute ``needs_bytes = False``, which spares keeping them.
    """

    @property
    def name(self) -> str:
        """What stands in the ledger as the rule."""
        ...

    def __call__(self, batch: Batch) -> Sequence[str | None]:
        """For each row of ``batch.table`` the reason why it goes, None where it stays.

        ``batch`` holds some whole samples as they would be written, ``batch.bytes`` their images. In documents a row
        goes by itself, elsewhere with its sample.
        """
        ...


class Encoder(Protocol):
    """A CLIP-like model: images and texts to unit vectors in one space."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def logit_scale(self) -> float: ...
    @property
    def logit_bias(self) -> float: ...
    @property
    def sigmoid(self) -> bool:
        """Whether an image and a text are judged by themselves (SigLIP), or a text among others by softmax (CLIP)."""
        ...

    def prepare(self, rgb: Pixels) -> Pixels:
        """``(h, w, 3)`` uint8 to the model's input size ``(H, W, 3)`` uint8, by the model's own preprocessing."""
        ...

    def images(self, prepared: Pixels) -> Vectors:
        """``(n, H, W, 3)`` uint8 to ``(n, dim)`` unit vectors, in one forward pass."""
        ...

    def windows(self, text: str) -> Sequence[str]:
        """The text cut into pieces that each fit the model's context; one piece when it fits."""
        ...

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Texts to ``(n, dim)`` unit vectors, in one forward pass; one over the context is truncated."""
        ...
