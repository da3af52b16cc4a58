"""Filters that are rules: what each says in Clipsieve's words, and ``Fused``, which makes one request of several.

By itself a filter scores a batch in memory (``clipsieve.curate``); in a pipeline it is a rule of the one run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve import encoders
from clipsieve.api.memory import curate
from clipsieve.core.layout import InvalidRows, Mask
from clipsieve.dropin.nemo_curator.batch import InterleavedBatch
from clipsieve.dropin.nemo_curator.checks import Kind, check
from clipsieve.dropin.nemo_curator.stages import BaseInterleavedFilterStage, rows_of
from clipsieve.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from clipsieve.core.contracts import Encoder

RATIO = "image_text_ratio"


@dataclass
class NativeFilterStage(BaseInterleavedFilterStage):
    """A filter that is a rule of Clipsieve's."""

    score: ClassVar[str]
    reads_images: ClassVar[bool] = True

    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value that stays."""
        raise NotImplementedError

    @property
    def rule(self) -> str | None:
        """The rule in Clipsieve's words; None when everything stays."""
        low, high = self.bounds()
        if math.isinf(low):
            return None if math.isinf(high) else f"{self.score} <= {float(high)!r}"
        if math.isinf(high):
            return f"{self.score} >= {float(low)!r}"
        return f"{float(low)!r} <= {self.score} <= {float(high)!r}"

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of the score; two stages with different ones are no rules of one run."""
        return {}

    @property
    def model(self) -> str | None:
        """The model that the score needs."""
        return None

    @property
    def is_rule(self) -> bool:
        """Whether the rule is all that decides: a subclass may change defaults, not the mask."""
        decide = ("content_keep_mask", "keep_mask", "process", "rows_that_stay")
        return all(getattr(type(self), name) is getattr(NativeFilterStage, name) for name in decide)

    def content_keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        """Which rows stay by the rule alone."""
        import pandas as pd

        rows = rows_of(df)
        order = pc.sort_indices(rows["sample_id"])
        keep = np.empty(len(df), dtype=bool)
        keep[order.to_numpy()] = _stay(Fused((self,)).reasons(rows.take(order), invalid_rows="keep"))
        return pd.Series(keep, index=df.index)

    def rows_that_stay(self, task: InterleavedBatch, rows: pa.Table) -> Mask:
        """Which of the ``rows`` of whole documents ``(rows,)`` stay."""
        return _stay(Fused((self,)).reasons(rows)) if self.is_rule else super().rows_that_stay(task, rows)

    def _check(self, **thresholds: Kind) -> None:
        super().__post_init__()
        check(self, **thresholds)
        low, high = self.bounds()
        if math.isnan(low) or math.isnan(high) or low > high or low == math.inf or high == -math.inf:
            raise UsageError(f"{self.name}: no {self.score} lies between {low} and {high}; check the thresholds")


@dataclass(frozen=True)
class Fused:
    """Filters, in order, that are rules of one request."""

    stages: tuple[NativeFilterStage, ...]

    def takes(self, stage: BaseInterleavedFilterStage) -> bool:
        """Whether ``stage`` can be the next one."""
        if not isinstance(stage, NativeFilterStage) or not stage.is_rule:
            return False
        if not self.stages:
            return True
        if stage.drop_invalid_rows and not self.stages[0].drop_invalid_rows:
            return False
        if stage.score == RATIO:
            return not any(before.score == RATIO for before in self.stages)
        return all(
            before.options == stage.options and _model_of(before) == _model_of(stage)
            for before in self.stages
            if before.score == stage.score
        )

    @property
    def reads_images(self) -> bool:
        """Whether any of them looks at images."""
        return any(stage.reads_images for stage in self.stages)

    @property
    def model(self) -> tuple[str, str] | None:
        """The model, and the device that it goes to."""
        return next(filter(None, map(_model_of, self.stages)), None)

    def request(self) -> dict[str, Any]:
        """The keys of a recipe."""
        scores = {stage.score: dict(stage.options) for stage in self.stages}
        if RATIO in scores:
            scores[RATIO] = {"count": self._counted}
        model = dict(zip(("model", "device"), self.model or (), strict=False))
        # A filter that looks at no image has nothing against a broken one.
        errors = {"on_error": "drop"} if self.reads_images else {"on_error": "keep", "check": "header"}
        keep = [stage.rule for stage in self.stages if stage.rule]
        return {"keep": keep, "scores": scores, "fetch": False, **model, **errors}

    @property
    def _counted(self) -> str:
        """The images that the ratio counts: broken ones are there until a stage has looked at them."""
        place = next(n for n, stage in enumerate(self.stages) if stage.score == RATIO)
        return "kept" if Fused(self.stages[:place]).reads_images else "source"

    def reasons(self, rows: pa.Table, invalid_rows: InvalidRows | None = None) -> list[str | None]:
        """For each of the rows of whole documents why it goes; None where it stays."""
        if not rows.num_rows:
            return []
        model = encoder(*self.model) if self.model else None
        invalid_rows = invalid_rows or ("drop" if self.stages[0].drop_invalid_rows else "keep")
        found = curate(rows, layout="interleaved", invalid_rows=invalid_rows, encoder=model, **self.request())
        return list(found.reasons)


def _stay(reasons: Sequence[str | None]) -> Mask:
    return np.array([reason is None for reason in reasons], dtype=bool)


def _model_of(stage: NativeFilterStage) -> tuple[str, str] | None:
    return None if stage.model is None else (stage.model, stage.resources.device)


def encoder(model: str, device: str) -> Encoder:
    """The model; the last two stay loaded, each until its files change."""
    folder = Path(model)
    files = folder.iterdir() if folder.is_dir() else ()
    return _loaded(model, device, max((file.stat().st_mtime_ns for file in files), default=0))


@lru_cache(maxsize=2)
def _loaded(model: str, device: str, version: int) -> Encoder:
    return encoders.load(model, device=device)
