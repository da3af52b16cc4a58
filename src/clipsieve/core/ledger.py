"""The ledger: one row per input image, and one per sample without images, with its scores and its verdict.

Columns: ``shard``, ``row``, ``image`` are the key (``image`` is the number within the sample, null for a sample
without images); ``sample`` numbers the samples of a shard; ``sample_id``, ``reference``; ``verdict`` (``kept``,
``dropped``, ``failed``), ``rule``, ``reason``, ``error``; ``sample_verdict``; ``has_text``, whether the sample holds
content that stays without its images; so rules can be replayed from it alone. Then a column a score, where null means
not computed (an earlier rule had dropped the image) and NaN that it cannot be scored. A score of a sample
stands on each of its rows; a score of pairs is a list: on the row of an image, the values with the images after it.
The metadata of a score's field names its ``unit``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clipsieve.core.decide import Unit, Verdicts
from clipsieve.core.layout import Mask, Parts

BASE_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("image", pa.int32()),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("sample_id", pa.string()),
        pa.field("reference", pa.string()),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("rule", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("error", pa.string()),
        pa.field("sample_verdict", pa.string(), nullable=False),
        pa.field("has_text", pa.bool_(), nullable=False),
    ]
)
"""The columns that every ledger has, before the scores."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """The values of one score, ``(units,)``, and which of them were computed."""

    unit: Unit
    type: pa.DataType
    values: npt.NDArray[Any]
    computed: Mask

    @classmethod
    def empty(cls, unit: Unit, type: pa.DataType, units: int) -> Score:
        """A score of which nothing is computed yet."""
        missing: Any = np.nan if pa.types.is_floating(type) else None
        values = np.full(units, missing, dtype=np.float64 if pa.types.is_floating(type) else object)
        return cls(unit=unit, type=type, values=values, computed=np.zeros(units, dtype=bool))

    def put(self, units: npt.NDArray[np.int64], column: pa.Array) -> None:
        """Stores computed values for ``units``; a null of ``column`` counts as missing (NaN)."""
        self.values[units] = column.to_numpy(zero_copy_only=False)
        self.computed[units] = True

    def array(self, units: npt.NDArray[np.int64]) -> pa.Array:
        """The values of ``units`` as Arrow, null where not computed."""
        return pa.array(self.values[units], type=self.type, mask=~self.computed[units], from_pandas=False)


def part(
    *,
    shard: int,
    first_row: int,
    first_sample: int,
    parts: Parts,
    verdicts: Verdicts,
    errors: Mapping[int, str],
    scores: Mapping[str, Score],
) -> pa.Table:
    """The ledger rows of some whole samples, in input order.

    ``first_row`` and ``first_sample`` are the numbers, within the shard, of the first row and sample of ``parts``.
    """
    images, samples = len(parts.images), len(parts.sample_ids)
    counts = np.bincount(parts.image_samples, minlength=samples)
    bare = np.flatnonzero(counts == 0)
    # Units in ledger order: images by sample, a sample without images in its place.
    unit_samples = np.concatenate([parts.image_samples, bare])
    order = np.argsort(unit_samples, kind="stable")
    unit_samples = unit_samples[order]
    unit_images = np.concatenate([np.arange(images), np.full(len(bare), -1)])[order]
    is_image = unit_images >= 0

    def by_unit(of_images: list[Any], of_samples: list[Any]) -> list[Any]:
        pairs = zip(unit_images.tolist(), unit_samples.tolist(), strict=True)
        return [of_images[i] if i >= 0 else of_samples[s] for i, s in pairs]

    sample_verdicts = _verdict_words(verdicts.samples, verdicts.sample_failed)
    image_verdicts = _verdict_words(verdicts.images, verdicts.failed & ~verdicts.exempt)
    rows = np.where(
        is_image,
        np.append(parts.image_rows, 0)[unit_images],
        parts.sample_rows[unit_samples],
    )
    base = [
        pa.array(np.full(len(order), shard), pa.int32()),
        pa.array(rows + first_row, pa.int64()),
        pa.array(np.append(parts.image_numbers, 0)[unit_images], pa.int32(), mask=~is_image),
        pa.array(unit_samples + first_sample, pa.int32()),
        pa.array([parts.sample_ids[s] for s in unit_samples.tolist()], pa.string()),
        pa.array(by_unit([source.reference for source in parts.images], [None] * samples), pa.string()),
        pa.array(by_unit(image_verdicts, sample_verdicts), pa.string()),
        pa.array(by_unit(verdicts.image_rules, verdicts.sample_rules), pa.string()),
        pa.array(by_unit(verdicts.image_reasons, verdicts.sample_reasons), pa.string()),
        pa.array(by_unit([errors.get(i) for i in range(images)], [None] * samples), pa.string()),
        pa.array([sample_verdicts[s] for s in unit_samples.tolist()], pa.string()),
        pa.array(verdicts.geometry.has_text[unit_samples], pa.bool_()),
    ]
    table = pa.Table.from_arrays(base, schema=BASE_SCHEMA)
    for name, score in scores.items():
        if score.unit == "sample":
            column = score.array(unit_samples)
        elif score.unit == "image":
            nothing = pa.nulls(1, score.type)
            column = pa.concat_arrays([score.array(np.arange(images)), nothing]).take(
                pa.array(np.where(is_image, unit_images, images))
            )
        else:
            column = _pair_lists(score, verdicts.geometry.pairs, unit_images)
        table = table.append_column(pa.field(name, column.type, metadata={"unit": score.unit}), column)
    return table


def _pair_lists(score: Score, pairs: npt.NDArray[np.int64], unit_images: npt.NDArray[np.int64]) -> pa.Array:
    # Pairs come sorted by their first image, so the values of an image are one stretch.
    starts = np.searchsorted(pairs[:, 0], np.append(unit_images, np.iinfo(np.int64).max))
    offsets = np.zeros(len(unit_images) + 1, dtype=np.int32)
    lengths = np.where(unit_images >= 0, np.searchsorted(pairs[:, 0], unit_images, side="right") - starts[:-1], 0)
    offsets[1:] = np.cumsum(lengths)
    return pa.ListArray.from_arrays(pa.array(offsets), score.array(np.arange(len(pairs))))


def _verdict_words(kept: Mask, failed: Mask) -> list[str]:
    return list(np.where(kept, "kept", np.where(failed, "failed", "dropped")))


def whole_images(rows: pa.Table) -> Mask:
    """Which of some ledger rows are images that were kept and did not fail, ``(rows,)``."""
    kept = pc.and_(pc.is_valid(rows["image"]), pc.equal(rows["verdict"], "kept"))
    return np.asarray(pc.and_(kept, pc.is_null(rows["error"])).to_numpy())


def image_names(rows: pa.Table) -> pa.Array:
    """What a person calls the images of some ledger rows: the path, else ``ID#0`` for the first of a sample, else the
    key, ``SHARD/SAMPLE/0``."""
    number = rows["image"].cast(pa.string())
    with_id = pc.binary_join_element_wise(rows["sample_id"], number, "#")
    key = pc.binary_join_element_wise(*(rows[name].cast(pa.string()) for name in ("shard", "sample")), number, "/")
    return pc.coalesce(rows["reference"], with_id, key).combine_chunks()


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of one kind of thing by verdict; they add up to ``total``."""

    kept: int = 0
    dropped: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.kept + self.dropped + self.failed

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            kept=self.kept + other.kept, dropped=self.dropped + other.dropped, failed=self.failed + other.failed
        )


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the images and samples of some ledger rows, by rule and by error."""

    images: Tally = Tally()
    samples: Tally = Tally()
    dropped_by: Mapping[str, int] = field(default_factory=dict)
    """Images that each rule dropped, with the rest of their sample."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Images by error."""


COUNTED = ("shard", "image", "sample", "verdict", "rule", "error", "sample_verdict")
"""Columns that ``count`` reads."""


def total(counts: Iterable[Counts]) -> Counts:
    """Those of all parts of a ledger together, the commonest rule and error first."""
    images = samples = Tally()
    dropped_by: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for part in counts:
        images, samples = images + part.images, samples + part.samples
        dropped_by.update(part.dropped_by)
        errors.update(part.errors)
    return Counts(
        images=images,
        samples=samples,
        dropped_by=dict(dropped_by.most_common()),
        errors=dict(errors.most_common()),
    )


def begins_sample(rows: pa.Table) -> Mask:
    """Which of some ledger rows, in order, are the first of their sample, ``(rows,)``."""
    begins = np.ones(rows.num_rows, dtype=bool)
    shard, sample = rows["shard"].to_numpy(), rows["sample"].to_numpy()
    begins[1:] = (shard[1:] != shard[:-1]) | (sample[1:] != sample[:-1])
    return begins


def pair_rows(lists: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows of the first and of the second image of each value in a score of pairs, ``(pairs,)`` each.

    The values of an image are those with the images after it, whose rows are the next ones.
    """
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    first = np.repeat(np.arange(len(lists)), sizes)
    within = np.arange(len(first)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return first, first + 1 + within


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column holds numbers, or those of pairs."""
    return bool(pa.types.is_floating(kind.value_type if pa.types.is_list(kind) else kind))


def count(ledger: pa.Table) -> Counts:
    """Counts the rows of a ledger, or of some whole samples of it."""
    is_image = pc.is_valid(ledger["image"])
    images = ledger.filter(is_image)
    samples = ledger["sample_verdict"].filter(pa.array(begins_sample(ledger)))
    return Counts(
        images=_tally(images["verdict"]),
        samples=_tally(samples),
        dropped_by=_value_counts(images.filter(pc.equal(images["verdict"], "dropped"))["rule"]),
        errors=_value_counts(images["error"]),
    )


def _tally(verdicts: pa.ChunkedArray) -> Tally:
    return Tally(**_value_counts(verdicts))


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(pc.drop_null(column)).to_pylist()
    return dict(Counter({item["values"]: item["counts"] for item in counted}).most_common())
