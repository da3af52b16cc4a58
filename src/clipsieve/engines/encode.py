"""A shard's texts and images on their way through the model: gathered from its chunks, and given back to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipsieve.core.embed import LongText, TextVectors, embed_texts

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder, Vectors
    from clipsieve.core.embed import Prompts
    from clipsieve.engines.chunk import Chunk


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardTexts:
    """The texts that a shard's encoded images are held against, and the sample, numbered in the shard, of each."""

    texts: list[str]
    samples: npt.NDArray[np.int64]

    @classmethod
    def of(cls, pieces: Sequence[Chunk]) -> ShardTexts:
        """Those of the chunks of a shard, when it is known which images are encoded."""
        found = [chunk.texts() for chunk in pieces]
        numbered = [samples + start for (_, samples), start in zip(found, _starts(pieces), strict=False)]
        return cls(texts=[text for texts, _ in found for text in texts], samples=np.concatenate(numbered))

    def encode(self, encoder: Encoder, policy: LongText, batch_size: int) -> TextVectors:
        """Their vectors; equal texts are encoded once."""
        return embed_texts(encoder, self.texts, self.samples, policy, batch_size)


def score_vectors(
    pieces: Sequence[Chunk], images: Sequence[Vectors], texts: TextVectors | None, prompts: Prompts | None
) -> None:
    """Runs the scorers that need vectors over the chunks of a shard.

    ``images`` has the vectors of each chunk, a row an image, NaN where it was not encoded; ``texts`` are the shard's.
    """
    cut: Iterable[TextVectors | None] = repeat(None, len(pieces)) if texts is None else _of_chunks(pieces, texts)
    for chunk, vectors, mine in zip(pieces, images, cut, strict=True):
        chunk.score_vectors(vectors, mine, prompts)


def _of_chunks(pieces: Sequence[Chunk], texts: TextVectors) -> Iterator[TextVectors]:
    for start, stop in pairwise(_starts(pieces)):
        mine = (texts.samples >= start) & (texts.samples < stop)
        yield TextVectors(vectors=texts.vectors[mine], samples=texts.samples[mine] - start)


def _starts(pieces: Sequence[Chunk]) -> list[int]:
    """Where the samples of each chunk begin in the shard, and where the last end."""
    starts: list[int] = np.cumsum([0] + [chunk.batch.samples for chunk in pieces]).tolist()
    return starts
