"""Images and texts to unit vectors in full model batches; each distinct text once, texts of like length together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from clipsieve.errors import ModelError, RecipeError

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


Prompt: TypeAlias = tuple[str, ...]
"""The wordings of something that images are held against; its vector is the mean direction of theirs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompts:
    """What a model makes of prompts, as plain values that travel to any worker.

    ``vectors`` holds a unit vector ``(dim,)`` float32 a prompt. The model's probability that an image goes with a
    prompt comes from ``logit_scale`` times their cosine plus ``logit_bias``: by the sigmoid where ``sigmoid`` says so
    (SigLIP), else by the softmax over all prompts.
    """

    vectors: Mapping[Prompt, npt.NDArray[np.float32]]
    logit_scale: float
    logit_bias: float
    sigmoid: bool

    def of(self, prompts: Sequence[Prompt]) -> Vectors:
        """The vectors of some of the prompts, ``(n, dim)``."""
        return np.stack([self.vectors[prompt] for prompt in prompts])


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


def check_prompts(encoder: Encoder, prompts: Sequence[Prompt]) -> None:
    """Raises ``RecipeError`` for a wording that does not fit the model's context: its end would not count."""
    for prompt in prompts:
        for wording in prompt:
            if len(encoder.windows(wording)) > 1:
                raise RecipeError(f"prompt over the model's context: {wording[:60]!r}...; shorten it")


def embed_prompts(encoder: Encoder, prompts: Sequence[Prompt], batch_size: int = BATCH_SIZE) -> Prompts:
    """The prompts as ``encoder`` sees them.

    Of several wordings the unit vectors are averaged and the mean made a unit vector again: the ensembling of Radford
    et al. 2021 (arXiv:2103.00020), section 3.1.4.
    """
    vectors = _embed_distinct(encoder, [wording for prompt in prompts for wording in prompt], batch_size)
    means = {prompt: np.mean([vectors[wording] for wording in prompt], axis=0) for prompt in prompts}
    return Prompts(
        vectors={prompt: mean / np.linalg.norm(mean) for prompt, mean in means.items()},
        logit_scale=encoder.logit_scale,
        logit_bias=encoder.logit_bias,
        sigmoid=encoder.sigmoid,
    )
