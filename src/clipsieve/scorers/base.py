"""What the scorers share: they can be called on plain lists, and on ``datasets.Dataset`` through ``map``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.core.embed import Prompt, Prompts, check_prompts, embed_prompts

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder


class OnLists(ABC):
    """Makes a scorer callable: ``Blur()(images)["blur"]``, or ``dataset.map(Blur(), input_columns="image",
    batched=True)``.

    ``why_missing`` says why a value is NaN, in the reason of a drop.
    """

    why_missing: ClassVar[str] = "the image cannot be read"

    def __call__(
        self, images: Sequence[Any], texts: Sequence[str | Sequence[str] | None] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Scores ``images`` (paths, bytes, PIL images, ``(h, w, 3)`` uint8 RGB, or lists of them) with their texts.

        An item of ``images`` is a sample, with the item of ``texts`` in the same place. Gives an array a column,
        with a value an image, pair or sample as the scorer's ``unit`` says; NaN (None for what is no number) where it
        cannot be scored.
        """
        scores = self.score(self._batch(images, texts))
        return {name: column.to_numpy(zero_copy_only=False) for name, column in scores.items()}

    @abstractmethod
    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """One value a unit of ``batch`` for each column."""

    def _batch(self, images: Sequence[Any], texts: Sequence[str | Sequence[str] | None] | None) -> Batch:
        return Batch.from_lists(images, texts)


def encoder_of(model: str | Encoder) -> Encoder:
    """The encoder itself, or the one of that name or folder, loaded once and kept for the next call."""
    return _loaded(model) if isinstance(model, str) else model


@lru_cache(maxsize=1)
def _loaded(model: str) -> Encoder:
    # Imported here, so that scorers come without torch until a model is asked for.
    from clipsieve import encoders

    return encoders.load(model)


def prompts_of(encoder: Encoder, prompts: tuple[Prompt, ...]) -> Prompts:
    """The prompts as ``encoder`` sees them, embedded once and kept for the next call."""
    return _embedded(encoder, prompts)  # type: ignore[arg-type]  # encoders are hashed by what they are, not hold


@lru_cache(maxsize=1)
def _embedded(encoder: Encoder, prompts: tuple[Prompt, ...]) -> Prompts:
    check_prompts(encoder, prompts)
    return embed_prompts(encoder, prompts)
