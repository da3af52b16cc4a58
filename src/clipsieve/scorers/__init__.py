"""The scorers. A new one is one file and one line in ``SCORERS``; rules name its columns.

One that looks at the vectors of a whole data set at once has its line in ``DATASET_SCORERS`` instead, and is computed
for a finished run: ``clipsieve add-score``.
"""

from __future__ import annotations

from collections.abc import Mapping

from clipsieve.core.contracts import DatasetScorer, Scorer
from clipsieve.scorers.blur import Blur
from clipsieve.scorers.clip_score import ClipScore
from clipsieve.scorers.content_hash import ContentHash
from clipsieve.scorers.facts import FileBytes, Size, Words
from clipsieve.scorers.image_text_ratio import ImageTextRatio
from clipsieve.scorers.label import Label
from clipsieve.scorers.nearest_similarity import NearestSimilarity
from clipsieve.scorers.neg_clip_loss import NegClipLoss
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

DATASET_SCORERS: tuple[type[DatasetScorer], ...] = (
    NegClipLoss,
    NearestSimilarity,
)

COLUMNS: Mapping[str, type[Scorer]] = {column: scorer for scorer in SCORERS for column in scorer.columns}
"""The scorer behind each column that a rule can name."""

DATASET_COLUMNS: Mapping[str, type[DatasetScorer]] = {
    column: scorer for scorer in DATASET_SCORERS for column in scorer.columns
}
"""The scorer behind each column that can be added to a finished run."""

__all__ = [
    "COLUMNS",
    "DATASET_COLUMNS",
    "DATASET_SCORERS",
    "SCORERS",
    "Blur",
    "ClipScore",
    "ContentHash",
    "FileBytes",
    "ImageTextRatio",
    "Label",
    "NearestSimilarity",
    "NegClipLoss",
    "PairSimilarity",
    "PerceptualHash",
    "QrCode",
    "Size",
    "Words",
]
