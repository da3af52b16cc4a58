"""Curate image-text data with CLIP: score every image once, keep what rules allow, record what happened to each.

::

    run = clipsieve.run(read="docs.parquet", keep=["blur >= 100", "clip_score >= 0.2"], write="webdataset:curated/")
    run.counts, run.ledger, run.show()

The names below are loaded when first used, so that ``import clipsieve`` and ``clipsieve --help`` answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipsieve import dedup
    from clipsieve.api import Curated, Run, add_score, apply_run, curate, dedup_run, index_run, label, run, score
    from clipsieve.core.batch import Batch
    from clipsieve.core.contracts import Filter
    from clipsieve.core.ledger import Counts, Tally
    from clipsieve.encoders import load as load_encoder
    from clipsieve.errors import ClipsieveError
    from clipsieve.index import Index
    from clipsieve.recipe import Recipe
    from clipsieve.scorers import (
        Blur,
        ClipScore,
        ContentHash,
        FileBytes,
        ImageTextRatio,
        Label,
        NearestSimilarity,
        NegClipLoss,
        PairSimilarity,
        PerceptualHash,
        QrCode,
        Size,
        Words,
    )

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Blur",
    "ClipScore",
    "ClipsieveError",
    "ContentHash",
    "Counts",
    "Curated",
    "Exported",
    "FileBytes",
    "Filter",
    "ImageTextRatio",
    "Index",
    "Label",
    "NearestSimilarity",
    "NegClipLoss",
    "PairSimilarity",
    "PerceptualHash",
    "QrCode",
    "Recipe",
    "Run",
    "Size",
    "Tally",
    "Words",
    "__version__",
    "add_score",
    "apply_run",
    "curate",
    "dedup",
    "dedup_run",
    "export_run",
    "index_run",
    "label",
    "load_encoder",
    "run",
    "score",
]

_SCORERS = (
    "Blur", "ClipScore", "ContentHash", "FileBytes", "ImageTextRatio", "Label", "NearestSimilarity", "NegClipLoss",
    "PairSimilarity", "PerceptualHash", "QrCode", "Size", "Words",
)  # fmt: skip
_HOMES = {
    "Batch": "core.batch",
    "ClipsieveError": "errors",
    "Counts": "core.ledger",
    "Curated": "api",
    "Exported": "api",
    "Filter": "core.contracts",
    "Index": "index",
    "Recipe": "recipe",
    "Run": "api",
    "Tally": "core.ledger",
    "add_score": "api",
    "apply_run": "api",
    "curate": "api",
    "dedup_run": "api",
    "export_run": "api",
    "index_run": "api",
    "label": "api",
    "run": "api",
    "score": "api",
    **dict.fromkeys(_SCORERS, "scorers"),
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name == "dedup":
        return import_module("clipsieve.dedup")
    if name == "load_encoder":
        return import_module("clipsieve.encoders").load
    if name in _HOMES:
        return getattr(import_module(f"clipsieve.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'clipsieve' has no attribute {name!r}")
