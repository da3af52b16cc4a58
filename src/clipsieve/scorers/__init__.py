"""The scorers. A new one is one file and one line in ``SCORERS``; rules name its columns."""

from __future__ import annotations

from collections.abc import Mapping

from clipsieve.core.contracts import Scorer
from clipsieve.scorers.blur import Blur
from clipsieve.scorers.clip_score import ClipScore
from clipsieve.scorers.facts import FileBytes, Size, Words
from clipsieve.scorers.image_text_ratio import ImageTextRatio
from clipsieve.scorers.pair_similarity import PairSimilarity
from clipsieve.scorers.qr_code import QrCode

SCORERS: tuple[type[Scorer], ...] = (
    Words,
    ImageTextRatio,
    FileBytes,
    Size,
    Blur,
    QrCode,
    ClipScore,
    PairSimilarity,
)

COLUMNS: Mapping[str, type[Scorer]] = {column: scorer for scorer in SCORERS for column in scorer.columns}
"""The scorer behind each column that a rule can name."""

__all__ = [
    "COLUMNS",
    "SCORERS",
    "Blur",
    "ClipScore",
    "FileBytes",
    "ImageTextRatio",
    "PairSimilarity",
    "QrCode",
    "Size",
    "Words",
]
