"""The scorers. A new one is one file and one line in ``SCORERS``; rules name its columns."""

from __future__ import annotations

from collections.abc import Mapping

from clipsieve.core.contracts import Scorer
from clipsieve.scorers.blur import Blur
from clipsieve.scorers.clip_score import ClipScore
from clipsieve.scorers.content_hash import ContentHash
from clipsieve.scorers.facts import FileBytes, Size, Words
from clipsieve.scorers.image_text_ratio import ImageTextRatio
from clipsieve.scorers.label import Label
from clipsieve.scorers.pair_similarity import PairSimilarity
from clipsieve.scorers.perceptual_hash import PerceptualHash
from clipsieve.scorers.qr_code import QrCode

SCORERS: tuple[type[Scorer], ...] = (
    Words,
    ImageTextRatio,
    FileBytes,
    Size,
    ContentHash,
    PerceptualHash,
    Blur,
    QrCode,
    ClipScore,
    PairSimilarity,
    Label,
)

COLUMNS: Mapping[str, type[Scorer]] = {column: scorer for scorer in SCORERS for column in scorer.columns}
"""The scorer behind each column that a rule can name."""

__all__ = [
    "COLUMNS",
    "SCORERS",
    "Blur",
    "ClipScore",
    "ContentHash",
    "FileBytes",
    "ImageTextRatio",
    "Label",
    "PairSimilarity",
    "PerceptualHash",
    "QrCode",
    "Size",
    "Words",
]
