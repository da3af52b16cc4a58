"""The published filters, with the parameters and defaults that they have there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from clipsieve.dropin.nemo_curator.checks import NUMBER, PATH, one_of
from clipsieve.dropin.nemo_curator.fused import RATIO, NativeFilterStage
from clipsieve.dropin.nemo_curator.resources import Resources

DEFAULT_MODEL = "openai/clip-vit-large-patch14"
"""The model that the published thresholds on CLIP scores refer to."""


@dataclass
class InterleavedBlurFilterStage(NativeFilterStage):
    """Keeps images whose ``blur``, the variance of the Laplacian, is at least ``score_threshold``."""

    score_threshold: float = 100.0
    name: str = "interleaved_blur_filter"
    score: ClassVar[str] = "blur"

    def __post_init__(self) -> None:
        self._check(score_threshold=NUMBER)

    def bounds(self) -> tuple[float, float]:
        """At least the threshold."""
        return self.score_threshold, math.inf


@dataclass
class InterleavedQRCodeFilterStage(NativeFilterStage):
    """Keeps images of which QR codes cover at most ``score_threshold``: the largest, or with ``sum`` all together."""

    score_threshold: float = 0.05
    name: str = "interleaved_qrcode_filter"
    aggregate: str = "largest"
    score: ClassVar[str] = "qr_code"

    def __post_init__(self) -> None:
        self._check(score_threshold=NUMBER, aggregate=one_of("largest", "sum"))

    def bounds(self) -> tuple[float, float]:
        """At most the threshold."""
        return -math.inf, self.score_threshold

    @property
    def options(self) -> Mapping[str, Any]:
        """Which codes count."""
        return {"aggregate": self.aggregate}


@dataclass
class InterleavedImageToTextRatioFilterStage(NativeFilterStage):
    """Keeps documents with ``min_ratio`` to ``max_ratio`` images a word, of what earlier stages have left."""

    min_ratio: float = 0.0
    max_ratio: float = math.inf
    name: str = "interleaved_image_to_text_ratio_filter"
    score: ClassVar[str] = RATIO
    reads_images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._check(min_ratio=NUMBER, max_ratio=NUMBER)

    def bounds(self) -> tuple[float, float]:
        """Both."""
        return self.min_ratio, self.max_ratio


@dataclass
class InterleavedCLIPScoreFilterStage(NativeFilterStage):
    """Keeps images whose cosine to at least one text of their document is ``min_score`` or more.

    ``model_dir`` is a folder that holds ``openai/clip-vit-large-patch14``, a model folder, ``demo`` or a hub id; None
    takes that model by its id. Without text an image goes.
    """

    model_dir: str | None = None
    min_score: float = 0.15
    name: str = "interleaved_clip_score_filter"
    resources: Resources = field(default_factory=lambda: Resources(gpu_memory_gb=20.0))
    score: ClassVar[str] = "clip_score"

    def __post_init__(self) -> None:
        self._check(model_dir=PATH.or_none, min_score=NUMBER)

    def bounds(self) -> tuple[float, float]:
        """At least the score."""
        return self.min_score, math.inf

    @property
    def model(self) -> str:
        """The model by the name that Clipsieve loads it by."""
        if self.model_dir is None:
            return DEFAULT_MODEL
        folder = Path(self.model_dir).expanduser().absolute()
        if (inside := folder / DEFAULT_MODEL).is_dir():
            return str(inside)
        return str(folder) if folder.is_dir() and str(self.model_dir) != "demo" else str(self.model_dir)


@dataclass
class InterleavedAspectRatioFilterStage(NativeFilterStage):
    """Keeps images whose width over height lies between ``min_aspect_ratio`` and ``max_aspect_ratio``."""

    min_aspect_ratio: float = 1.0
    max_aspect_ratio: float = 2.0
    name: str = "interleaved_aspect_ratio_filter"
    score: ClassVar[str] = "aspect_ratio"

    def __post_init__(self) -> None:
        self._check(min_aspect_ratio=NUMBER, max_aspect_ratio=NUMBER)

    def bounds(self) -> tuple[float, float]:
        """Both."""
        return self.min_aspect_ratio, self.max_aspect_ratio
