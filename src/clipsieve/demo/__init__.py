"""Generated sample data with planted faults, and the comparison of a ledger with the planted truth."""

from __future__ import annotations

from clipsieve.demo.dataset import CLIP_SCORE_THRESHOLD, DEDUP, KEEP_DOCUMENTS, KEEP_PAIRS, generate
from clipsieve.demo.truth import Outcome, TruthRow, compare, read_truth

__all__ = [
    "CLIP_SCORE_THRESHOLD",
    "DEDUP",
    "KEEP_DOCUMENTS",
    "KEEP_PAIRS",
    "Outcome",
    "TruthRow",
    "compare",
    "generate",
    "read_truth",
]
