"""``ImagePairSimilarityFilter``, which Hugging Face data sets map and filter with, on the native engine.

Scores are ``pair_similarity``, the decision is the rule ``MIN <= any(pair_similarity) <= MAX``.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping, MutableMapping, Sequence
from functools import lru_cache
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import pyarrow.compute as pc

from clipsieve import encoders
from clipsieve.api import curate
from clipsieve.core.rules import Rule, parse
from clipsieve.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder

Sample = TypeVar("Sample", bound=MutableMapping[str, Any])

log = logging.getLogger("clipsieve")

STATS = "__dj__stats__"
STAT = "image_pair_similarity"
OPERATOR = "image_pair_similarity_filter"

_TWO_IMAGES = "Each sample must include two images."
_ACCELERATORS = {None: "auto", "cuda": "auto", "cpu": "cpu"}
"""Devices by the names they have there, where ``cuda`` means a GPU when there is one."""

_READ_OPTIONS = ("accelerator", "image_key", "images_key", "max_closed_interval", "min_closed_interval", "text_key")
_IDLE_OPTIONS = (
    "audio_key", "auto_op_parallelism", "batch_size", "cpu_required", "gpu_required", "history_key", "index_key",
    "instruction_key", "mem_required", "memory", "num_cpus", "num_gpus", "num_proc", "prompt_key", "query_key",
    "ray_execution_mode", "response_key", "runtime_env", "skip_op_error", "stats_export_path", "system_key", "turbo",
    "video_key", "work_dir",
)  # fmt: skip
"""Options of every operator there that change no score and no decision of this one."""

_REFUSED_OPTIONS = {
    "image_bytes_key": "put the bytes into the column of the images, in place of the paths",
    "reversed_range": "a rule keeps what lies in a range; curate twice, below and above it",
}


class ImagePairSimilarityFilter:
    """Keeps the samples whose two images' CLIP cosine lies in ``[min_score, max_score]``.

    ``hf_clip`` is a hub id, a folder or ``demo``. ``any_or_all`` says how many of a sample's values must lie in the
    range; of two images there is one. ``kwargs`` are the options that every operator of Data-Juicer has: ``image_key``
    (``images``), ``text_key``, ``accelerator`` and ``min_closed_interval`` or ``max_closed_interval`` are followed,
    those that change no result are accepted, any other is refused by name. Raises ``ValueError``.

    An operator holds plain values only: it can be pickled, and each process loads the model when it first needs it.
    """

    type: ClassVar[str] = "filter"
    tags: ClassVar[tuple[str, ...]] = ("cpu", "hf", "image")

    def __init__(
        self,
        hf_clip: str = "openai/clip-vit-base-patch32",
        trust_remote_code: bool = False,
        min_score: float = 0.1,
        max_score: float = 1.0,
        any_or_all: str = "any",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if args:
            raise UsageError(f"{OPERATOR}: {args[0]!r} has no meaning after any_or_all; give further options by name")
        if trust_remote_code:
            raise UsageError(
                f"{OPERATOR}: trust_remote_code is refused, since Clipsieve never runs a model's own code; leave it "
                "out and take a model that transformers knows"
            )
        if not isinstance(hf_clip, (str, os.PathLike)) or not os.fspath(hf_clip):
            raise UsageError(f"{OPERATOR}: hf_clip is a hub id, a folder or demo, not {hf_clip!r}")
        for name, score in (("min_score", min_score), ("max_score", max_score)):
            if not isinstance(score, Real) or isinstance(score, bool) or not 0 <= float(score) <= 1:
                raise UsageError(f"{OPERATOR}: {name} is a number from 0 to 1, not {score!r}")
        if min_score > max_score:
            raise UsageError(f"{OPERATOR}: min_score {min_score} is above max_score {max_score}: nothing would be kept")
        if any_or_all not in ("any", "all"):
            raise UsageError(f'Keep strategy [{any_or_all}] is not supported. Can only be one of ["any", "all"].')
        _check_options(kwargs)
        self.hf_clip = os.fspath(hf_clip)
        self.min_score, self.max_score, self.any_or_all = min_score, max_score, any_or_all
        self.text_key: str = kwargs.get("text_key", "text")
        self.image_key: str = kwargs.get("image_key", kwargs.get("images_key", "images"))
        self.device = _ACCELERATORS[kwargs.get("accelerator")]
        low, high = ("<=" if kwargs.get(f"{side}_closed_interval", True) else "<" for side in ("min", "max"))
        self.keep = f"{float(min_score)!r} {low} {any_or_all}(pair_similarity) {high} {float(max_score)!r}"
        """The decision as a rule of Clipsieve's."""

    @property
    def rule(self) -> Rule:
        """The same, checked."""
        return _parsed(self.keep)

    def compute_stats(self, sample: Sample, rank: int | None = None, context: bool = False) -> Sample:
        """Adds the score to the stats of a sample, or of the samples of a batch, where it is not there yet.

        ``rank`` and ``context`` are accepted and change nothing. Raises ``ValueError`` for a sample without exactly
        two different images; an image that cannot be read is NaN, which no range holds.
        """
        return self.compute_stats_batched(sample) if _is_batch(sample) else self.compute_stats_single(sample)

    def compute_stats_single(self, sample: Sample, rank: int | None = None, context: bool = False) -> Sample:
        """``compute_stats`` of one sample."""
        stats = sample[STATS]
        if not _known(stats):
            (score,) = self._scores([_pair(sample.get(self.image_key))])
            sample[STATS] = {**(stats or {}), STAT: [score]}
        return sample

    def compute_stats_batched(self, samples: Sample, rank: int | None = None, context: bool = False) -> Sample:
        """``compute_stats`` of a batch, a mapping of column to values."""
        stats = list(samples[STATS])
        rows = [row for row, known in enumerate(stats) if not _known(known)]
        if rows:
            images = samples[self.image_key] if self.image_key in samples else [None] * len(stats)
            scores = self._scores([_pair(images[row], f" Row {row} of the batch:") for row in rows])
            for row, score in zip(rows, scores, strict=True):
                stats[row] = {**(stats[row] or {}), STAT: [score]}
            samples[STATS] = stats
        return samples

    def process(self, sample: Mapping[str, Any], rank: int | None = None) -> bool | list[bool]:
        """Whether a sample stays, or which of the samples of a batch do."""
        return self.process_batched(sample) if _is_batch(sample) else self.process_single(sample)

    def process_single(self, sample: Mapping[str, Any], rank: int | None = None) -> bool:
        """``process`` of one sample."""
        return self.process_batched({STATS: [sample[STATS]]})[0]

    def process_batched(self, samples: Mapping[str, Any], rank: int | None = None) -> list[bool]:
        """``process`` of a batch."""
        values = [_values(stats) for stats in samples[STATS]]
        counts = np.array([len(found) for found in values], dtype=np.int64)
        owners = np.repeat(np.arange(len(values)), counts)
        stays = self.rule.passes_groups(np.concatenate([np.zeros(0), *values]), owners, len(values))
        # As described: a stat that holds no value at all says nothing against its sample.
        kept: list[bool] = (stays | (counts == 0)).tolist()
        return kept

    def _scores(self, pairs: Sequence[Sequence[Any]]) -> list[float]:
        curated = curate(
            {"images": pairs},
            layout="lists",
            columns={"image": "images"},
            scores={"pair_similarity": {}},
            encoder=_encoder(self.hf_clip, self.device, os.getpid()),
        )
        ledger = curated.ledger.select(["image", "reference", "error", "pair_similarity"])
        for failed in ledger.filter(pc.is_valid(ledger["error"])).to_pylist():
            name = failed["reference"] or "an image"
            log.warning("%s: %s; its sample scores NaN, which no range holds", name, failed["error"])
        return [values[0] for values in ledger.filter(pc.equal(ledger["image"], 0))["pair_similarity"].to_pylist()]


def _check_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name in _REFUSED_OPTIONS:
            if value:
                raise UsageError(f"{OPERATOR}: {name} is not supported; {_REFUSED_OPTIONS[name]}")
        elif name not in (*_READ_OPTIONS, *_IDLE_OPTIONS):
            own = ("hf_clip", "min_score", "max_score", "any_or_all")
            known = (*own, *_READ_OPTIONS, *_IDLE_OPTIONS)
            raise UsageError(f"{OPERATOR}: unknown option {name!r}; {hint(name, known, own)}")
    for name in ("image_key", "images_key", "text_key"):
        if name in options and not (isinstance(options[name], str) and options[name]):
            raise UsageError(f"{OPERATOR}: {name} is the name of a column, not {options[name]!r}")
    if "image_key" in options and "images_key" in options:
        raise UsageError(f"{OPERATOR}: image_key and images_key both name the column of the images; give one")
    for name in ("max_closed_interval", "min_closed_interval"):
        if not isinstance(options.get(name, True), bool):
            raise UsageError(f"{OPERATOR}: {name} is true or false, not {options[name]!r}")
    if options.get("accelerator") not in _ACCELERATORS:
        raise UsageError(f"{OPERATOR}: accelerator is cuda or cpu, not {options['accelerator']!r}")


def hint(name: str, known: Sequence[str], shown: Sequence[str]) -> str:
    """What to say of an unknown name: the nearest of ``known``, else those that are ``shown``."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(shown)}"


@lru_cache(maxsize=8)
def _parsed(text: str) -> Rule:
    (rule,) = parse(text)
    return rule


@lru_cache(maxsize=1)
def _encoder(model: str, device: str, process: int) -> Encoder:
    """The model, loaded once in each process: one that was forked cannot use a GPU through its parent's."""
    return encoders.load(model, device=device, precision="fp32")


def _is_batch(sample: Mapping[str, Any]) -> bool:
    """Whether a cell holds the values of many rows: the stats of one sample are a mapping."""
    if STATS not in sample:
        raise ColumnError(f"no column {STATS!r}; add it with ds.add_column({STATS!r}, [{{}}] * ds.num_rows)")
    return not (sample[STATS] is None or isinstance(sample[STATS], Mapping))


def _known(stats: Mapping[str, Any] | None) -> bool:
    """Whether the score is there: Arrow gives every row the key as soon as one has it, with null for the others."""
    return stats is not None and stats.get(STAT) is not None


def _values(stats: Mapping[str, Any] | None) -> Any:
    if stats is None or stats.get(STAT) is None:
        raise UsageError(f"no {STAT} in {STATS!r} of a sample; run compute_stats first")
    return np.asarray(stats[STAT], dtype=np.float64).ravel()


def _pair(images: Any, where: str = "") -> Sequence[Any]:
    """``images``, once they are two different ones. Raises ``ValueError``."""
    if isinstance(images, (str, bytes, Mapping)) or not (images is None or hasattr(images, "__len__")):
        raise ValueError(f"{_TWO_IMAGES}{where} Found {type(images).__name__}, not a list.")
    if isinstance(images, np.ndarray) and images.ndim == 3:
        raise ValueError(f"{_TWO_IMAGES}{where} Found one, not in a list.")
    count = 0 if images is None else len(images)
    if count != 2:
        raise ValueError(f"{_TWO_IMAGES}{where} Found {count}.")
    first, second = images
    if _same(first, second):
        raise ValueError(f"{_TWO_IMAGES}{where} Found the same one twice.")
    return [first, second]


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other)
    except (OSError, ValueError):  # an image of Pillow's that is broken: the score will say so
        return False
