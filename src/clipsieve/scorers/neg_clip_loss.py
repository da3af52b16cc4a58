"""``neg_clip_loss``: how well an image fits its text, less how well both fit anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.core.threads import cores, single_blas
from clipsieve.dedup.vectors import UnitVectors

if TYPE_CHECKING:
    from clipsieve.core.contracts import Unit, Vectors, VectorsOf

    Numbers = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]
    Doubles = npt.NDArray[np.float64]

ROWS, COLUMNS = 512, 1024
"""Images and texts that are compared at once: 2 MB of products, which stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class NegClipLoss:
    """Cosine of an image and its text, minus ``tau / 2`` times the log-sum-exp of the image's and of the text's
    similarities over ``tau`` within a random batch; the mean over ``passes``, rounded to 5 decimals.

    Source: Wang et al., "CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive Learning", NeurIPS
    2024 (arXiv:2405.19547), whose constants are the defaults: the temperature and batch size of OpenAI's CLIP, 10
    passes. Each pass divides the pairs anew into as few equal batches of at most ``batch_size`` as there can be,
    drawn by a generator that begins with ``seed``.
    """

    tau: float = 0.01
    batch_size: int = 32_768
    passes: int = 10
    seed: int = 0

    columns: ClassVar[Mapping[str, pa.DataType]] = {"neg_clip_loss": pa.float64()}
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[tuple[VectorsOf, ...]] = ("image", "text")
    why_missing: ClassVar[str] = "no text"

    def __post_init__(self) -> None:
        # Beyond, cosines over tau would leave the range of float32, or say nothing.
        if isinstance(self.tau, bool) or not isinstance(self.tau, (int, float)) or not 1e-6 <= self.tau <= 1e6:
            raise ValueError(f"tau is a number from 1e-6 to 1e6, not {self.tau!r}")
        for name, least in (("batch_size", 2), ("passes", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is a whole number of at least {least}, not {value!r}")

    def __call__(self, images: Vectors, texts: Vectors) -> dict[str, npt.NDArray[Any]]:
        """Scores ``images`` ``(n, dim)`` with the text beside each, ``(n, dim)``, both of any length; NaN where one of
        the two is a row of NaN, infinity or zeros."""
        return {name: column.to_numpy() for name, column in self.score([images, texts]).items()}

    def score(
        self, vectors: Sequence[Vectors], progress: Callable[[int, int], None] | None = None
    ) -> Mapping[str, pa.Array]:
        """float64, at most 0; NaN for an image without a vector or without a text.

        Raises ``ValueError`` when images and texts do not go together. In memory are the vectors of one batch, and
        some blocks of products.
        """
        if len({np.shape(of) for of in vectors}) > 1 or np.ndim(vectors[0]) != 2:
            shapes = " and ".join(str(np.shape(of)) for of in vectors)
            raise ValueError(f"images and texts are (n, dim) arrays of one shape, not {shapes}")
        images, texts = (UnitVectors(np.asarray(of)) for of in vectors)
        pairs = np.flatnonzero(images.usable & texts.usable)
        batches = max(-(-len(pairs) // self.batch_size), 1)
        # One batch of all pairs is the same in every pass.
        passes = self.passes if batches > 1 else 1
        steps = passes * sum(-(-len(batch) // ROWS) for batch in np.array_split(pairs, batches))
        counted = count(1)

        def step() -> None:
            if progress:
                progress(next(counted), steps)

        total = np.full(len(images.usable), np.nan)
        total[pairs] = 0
        with single_blas():
            for batch in self._batches(pairs, batches, passes):
                total[batch] += negative_losses(images.unit(batch), texts.unit(batch), self.tau, step)
        rounded = (total / passes).round(5) + 0.0  # no -0
        return {"neg_clip_loss": pa.array(rounded, pa.float64())}

    def _batches(self, pairs: Numbers, batches: int, passes: int) -> Iterator[Numbers]:
        random = np.random.default_rng(self.seed)
        for _ in range(passes):
            for batch in np.array_split(random.permutation(pairs), batches):
                # The order within a batch decides nothing; ascending, a file on disk is read forwards.
                yield np.sort(batch)


def negative_losses(images: Floats, texts: Floats, tau: float, step: Callable[[], None]) -> Doubles:
    """``-tau`` times the CLIP loss of each pair of one batch, ``(n,)``, from unit vectors ``(n, dim)``.

    ``step`` is called after every ``ROWS`` images. Sums are taken in the order of the rows, whichever thread is done
    first.
    """

    def compare(start: int) -> tuple[Doubles, Doubles]:
        """For some images the log-sum-exp over all texts, and for each text that over these images."""
        some: Floats = np.divide(images[start : start + ROWS], tau, dtype=np.float32)
        of_images, of_texts = np.full(len(some), -np.inf), np.empty(len(texts))
        for first in range(0, len(texts), COLUMNS):
            part = slice(first, first + COLUMNS)
            logits = some @ texts[part].T
            of_images = np.logaddexp(of_images, log_sum_exp(logits, axis=1))
            of_texts[part] = log_sum_exp(logits, axis=0)
        return of_images, of_texts

    starts = range(0, len(images), ROWS)
    of_images, of_texts = np.empty(len(images)), np.full(len(texts), -np.inf)
    with ThreadPoolExecutor(cores()) as pool:
        for start, (rows, columns) in zip(starts, pool.map(compare, starts), strict=True):
            of_images[start : start + ROWS] = rows
            of_texts = np.logaddexp(of_texts, columns)
            step()
    cosines = np.einsum("ij,ij->i", images, texts, dtype=np.float64)
    losses: Doubles = cosines - tau / 2 * (of_images + of_texts)
    return losses


def log_sum_exp(logits: Floats, axis: int) -> Doubles:
    """``log(sum(exp(logits)))`` along an axis, whatever their size: the largest of each sum is taken out first."""
    largest = logits.max(axis=axis, keepdims=True)
    sums = np.exp(logits - largest).sum(axis=axis, dtype=np.float64)
    found: Doubles = np.log(sums) + largest.squeeze(axis)
    return found
