"""Images and texts to unit vectors in full model batches; each distinct text once, texts of like length together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.errors import ModelError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder, Pixels, Vectors

LongText: TypeAlias = Literal["truncate", "chunk-max", "chunk-mean", "error"]
"""What to do with a text longer than the model's context: see ``embed_texts``."""

BATCH_SIZE = 32
"""Images or texts a forward pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextVectors:
    """``vectors`` ``(n, dim)`` and the sample of each, ``samples`` ``(n,)``; a chunked text has several."""

    vectors: Vectors
    samples: npt.NDArray[np.int64]


def embed_images(encoder: Encoder, prepared: Sequence[Pixels | None], batch_size: int = BATCH_SIZE) -> Vectors:
    """``(n, dim)`` unit vectors of prepared images; a row of NaN for each None."""
    vectors = np.full((len(prepared), encoder.dim), np.nan, dtype=np.float32)
    present = [(i, image) for i, image in enumerate(prepared) if image is not None]
    for start in range(0, len(present), batch_size):
        places, images = zip(*present[start : start + batch_size], strict=True)
        vectors[list(places)] = encoder.images(np.stack(images))
    return vectors


def embed_texts(
    encoder: Encoder,
    texts: Sequence[str],
    samples: npt.NDArray[np.int64],
    policy: LongText = "truncate",
    batch_size: int = BATCH_SIZE,
) -> TextVectors:
    """Unit vectors of ``texts``, each belonging to the sample of the same place in ``samples``.

    A text that does not fit the model's context is truncated (end-of-text token kept), gives one vector a window
    (``chunk-max``), the mean direction of its windows (``chunk-mean``), or raises ``ModelError`` (``error``).
    """
    if policy == "truncate":
        windows: dict[str, Sequence[str]] = {text: (text,) for text in texts}
    else:
        windows = {text: encoder.windows(text) for text in dict.fromkeys(texts)}
    if policy == "error":
        for text, cut in windows.items():
            if len(cut) > 1:
                raise ModelError(f"text over the model's context: {text[:60]!r}...; choose another long_text policy")
    vectors = _embed_distinct(encoder, [window for cut in windows.values() for window in cut], batch_size)
    rows: list[Vectors] = []
    owners: list[int] = []
    for text, sample in zip(texts, samples.tolist(), strict=True):
        found = np.stack([vectors[window] for window in windows[text]])
        if policy == "chunk-mean" and len(found) > 1:
            mean = found.mean(axis=0, keepdims=True)
            found = mean / np.linalg.norm(mean)
        rows.extend(found)
        owners.extend([sample] * len(found))
    stacked = np.stack(rows) if rows else np.zeros((0, encoder.dim), dtype=np.float32)
    return TextVectors(vectors=stacked, samples=np.array(owners, dtype=np.int64))


def _embed_distinct(encoder: Encoder, texts: Sequence[str], batch_size: int) -> dict[str, Vectors]:
    # Sorted by length, so that a forward pass pads little.
    distinct = sorted(dict.fromkeys(texts), key=len)
    vectors: dict[str, Vectors] = {}
    for start in range(0, len(distinct), batch_size):
        chosen = distinct[start : start + batch_size]
        vectors.update(zip(chosen, encoder.texts(chosen), strict=True))
    return vectors
