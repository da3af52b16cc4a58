"""``ImageClipFilter`` and ``ImageDeduplicateFilter``, on the native engine.

Scores are ``clip_score``, the decision is the rule ``clip_score >= THRESHOLD`` with ``missing: 0``; near duplicates
are those of ``clipsieve.dedup``. What could not be read or was cut is said once a run, by the logger ``clipsieve``.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, overload

import numpy as np
import pyarrow as pa

from clipsieve import dedup, encoders
from clipsieve.api.memory import Curated, curate
from clipsieve.dropin.dataflow.storage import check_names, framed
from clipsieve.errors import ColumnError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from clipsieve.core.contracts import Encoder

SURELY_FITS = 40
"""Bytes of a text that fits any model's context: a token stands for one byte or more, and contexts begin at 52."""

log = logging.getLogger("clipsieve")


class Storage(Protocol):
    """What an operator needs of a storage."""

    def read(self, output_type: Any) -> Any:
        """The table, as a DataFrame for ``dataframe``."""

    def write(self, data: Any) -> Any:
        """Keeps a DataFrame."""


class ImageClipFilter:
    """Keeps the rows whose caption fits their image: the cosine of their vectors, at least 0, is at or above a
    threshold.

    An image that is missing or broken and a caption that is blank or no text have the similarity 0.0. Similarities
    are rounded to 5 decimals and compared so.
    """

    def __init__(self, model_name: str = "openai/clip-vit-base-patch32", device: str | None = None) -> None:
        """Loads the model, a hub id, a folder or ``demo``; ``device`` None is the best there is.

        Raises ``ModelError``.
        """
        self.model_name = model_name
        self.encoder = encoders.load(model_name, device=str(device or "auto"), precision="fp32")

    def run(
        self,
        storage: Storage,
        input_image_key: str = "image",
        input_caption_key: str = "caption",
        threshold: float = 0.25,
    ) -> list[str]:
        """Reads the storage's table, writes what stays of it, and returns the names of the two columns.

        Raises ``ColumnError`` (a ``ValueError``) for a column that the table does not have.
        """
        frame = _read(storage, input_image_key, input_caption_key)
        captions = _texts(frame, input_caption_key)
        _note_odd(frame[input_caption_key], captions)
        _note_long(self.encoder, captions)
        demanding = not threshold <= 0  # NaN too, which the rule refuses
        curated = self._curated(
            _cells(frame, input_image_key),
            captions,
            keep=[{"rule": f"clip_score >= {float(threshold)!r}", "missing": 0}] if demanding else None,
            # No similarity is below 0, so that at such a threshold every row stays.
            on_error="drop" if demanding else "keep",
        )
        _warn_of_failures(curated.ledger, "score 0.0")
        storage.write(_chosen(frame, curated.kept))
        log.info("clip_score >= %g: kept %d of %d rows", threshold, len(curated.kept), len(frame))
        return [input_image_key, input_caption_key]

    def compute_similarity(self, image_path: Any, text: Any) -> float:
        """The similarity of one image (a path, bytes or a picture) with a text, in [0, 1], as ``run`` finds it."""
        frame = framed([{"image": image_path, "text": text}])
        curated = self._curated(
            _cells(frame, "image"), _texts(frame, "text"), scores={"clip_score": {}}, on_error="keep"
        )
        score: float = curated.ledger["clip_score"][0].as_py()
        return 0.0 if math.isnan(score) else max(score, 0.0)

    def is_consistent(self, image_path: Any, caption: Any, threshold: float = 0.25) -> bool:
        """Whether ``run`` would keep the row at this threshold."""
        return bool(self.compute_similarity(image_path, caption) >= threshold)

    def _curated(self, images: Sequence[Any], captions: Sequence[str | None], **options: Any) -> Curated:
        return curate(
            {"image": images, "caption": captions},
            layout="captions",
            columns={"image": "image", "text": "caption"},
            encoder=self.encoder,
            fetch=False,
            **options,
        )


class DuplicatePair(TypedDict):
    """Two near duplicates, by their numbers among the rows whose image was loaded."""

    kept_idx: int
    removed_idx: int
    similarity: float


class ImageDeduplicateFilter:
    """Removes every row whose image is a near duplicate of an earlier one: a cosine at or above ``threshold``.

    Rows whose image cannot be read are left out. After ``run``, ``duplicate_pairs`` lists the pairs; it finds them
    when asked, so that it can be of any length.
    """

    def __init__(
        self,
        model_name: str = "openai/clip-vit-base-patch32",
        threshold: float = 0.90,
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        """Loads the model, a hub id, a folder or ``demo``; ``device`` None is the best there is.

        Raises ``ModelError``, and ``ValueError`` for a threshold that is no cosine and a batch of no image.
        """
        if not -1 <= threshold <= 1:
            raise UsageError(f"threshold is a cosine between -1 and 1, not {threshold}")
        if batch_size < 1:
            raise UsageError(f"batch_size is a number of images, 1 or more, not {batch_size}")
        self.model_name, self.threshold, self.batch_size = model_name, threshold, batch_size
        self.encoder = encoders.load(model_name, device=str(device or "auto"), precision="fp32")
        self.duplicate_pairs: Sequence[DuplicatePair] = ()

    def run(
        self, storage: Storage, input_image_key: str = "image", output_score_key: str = "max_similarity"
    ) -> list[str]:
        """Reads the storage's table, writes what stays of it with a column ``output_score_key``, and returns the
        names of the two columns.

        The column holds the highest cosine to any other image that could be read, also to those that go; 0.0 where
        there is no other. Raises ``ColumnError`` (a ``ValueError``) for a column that the table does not have.
        """
        if output_score_key == input_image_key:
            raise UsageError(f"output_score_key {output_score_key!r} is the column of the images; give another name")
        frame = _read(storage, input_image_key)
        curated = curate(
            {"image": _cells(frame, input_image_key)},
            layout="captions",
            columns={"image": "image"},
            encoder=self.encoder,
            vectors=True,
            fetch=False,
            batch_size=self.batch_size,
        )
        _warn_of_failures(curated.ledger, "are left out")
        assert curated.vectors is not None  # as asked for
        loaded = np.flatnonzero(~np.isnan(curated.vectors).any(axis=1))
        vectors = curated.vectors[loaded]
        found = dedup.semantic(vectors, self.threshold, links="any", method="exact")
        self.duplicate_pairs = DuplicatePairs(dedup.Pairs(vectors, self.threshold, found=found))
        assert found.max_similarity is not None  # as for all vectors
        kept = _chosen(frame, curated.ledger["row"].to_numpy()[loaded[~found.removed]])
        kept[output_score_key] = np.nan_to_num(found.max_similarity[~found.removed], nan=0.0)
        storage.write(kept)
        log.info("near duplicates at %g: kept %d of %d rows", self.threshold, len(kept), len(frame))
        return [input_image_key, output_score_key]


class DuplicatePairs(Sequence[DuplicatePair]):
    """``clipsieve.dedup.Pairs`` under DataFlow's names; found when asked for."""

    def __init__(self, pairs: Sequence[dedup.Pair]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> DuplicatePair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[DuplicatePair]: ...
    def __getitem__(self, index: int | slice) -> DuplicatePair | Sequence[DuplicatePair]:
        return DuplicatePairs(self._pairs[index]) if isinstance(index, slice) else _named(self._pairs[index])

    def __iter__(self) -> Iterator[DuplicatePair]:
        return map(_named, self._pairs)


def _named(pair: dedup.Pair) -> DuplicatePair:
    return {"kept_idx": pair.first, "removed_idx": pair.second, "similarity": pair.similarity}


def _read(storage: Storage, *needed: str) -> pd.DataFrame:
    frame: pd.DataFrame = storage.read("dataframe")
    check_names(frame.columns)
    if not len(frame) and not len(frame.columns):  # in JSON, no rows have no columns
        log.warning("the table is empty: there is nothing to filter")
        frame = framed({name: [] for name in needed})
    for name in needed:
        if name not in frame.columns:
            raise ColumnError(
                f"the table has no column {name!r}; it has: {', '.join(map(str, frame.columns)) or 'none'}"
            )
    return frame


def _cells(frame: pd.DataFrame, name: str) -> list[Any]:
    """The cells of a column as Python values, None where pandas says that one is missing."""
    column = frame[name].astype(object)
    cells: list[Any] = column.where(column.notna(), None).tolist()
    return cells


def _texts(frame: pd.DataFrame, name: str) -> list[str | None]:
    """The cells of a column, None for what is no text."""
    return [cell if isinstance(cell, str) else None for cell in _cells(frame, name)]


def _chosen(frame: pd.DataFrame, rows: Any) -> pd.DataFrame:
    """Some rows of a table, numbered anew, all columns as they were."""
    return frame.iloc[rows].reset_index(drop=True)


def _note_odd(column: pd.Series, captions: Sequence[str | None]) -> None:
    odd = int(column.notna().sum()) - sum(text is not None for text in captions)
    if odd:
        log.warning("%d of %d captions are no text and score 0.0", odd, len(captions))


def _note_long(encoder: Encoder, captions: Sequence[str | None]) -> None:
    counts = Counter(text for text in captions if text and len(text.encode(errors="replace")) > SURELY_FITS)
    cut = sum(count for text, count in counts.items() if len(encoder.windows(text)) > 1)
    if cut:
        log.warning(
            "%d of %d captions are over the model's context; what does not fit is not scored", cut, len(captions)
        )


def _warn_of_failures(ledger: pa.Table, outcome: str) -> None:
    errors = [error for error in ledger["error"].to_pylist() if error is not None]
    if not errors:
        return
    kinds = Counter(error.partition(":")[0] for error in errors).most_common()
    told = ", ".join(f"{count} {kind}" for kind, count in kinds)
    remedy = "; images by URL are not fetched, download them first" if any(k == "not fetched" for k, _ in kinds) else ""
    log.warning("%d of %d images cannot be read and %s: %s%s", len(errors), ledger.num_rows, outcome, told, remedy)
