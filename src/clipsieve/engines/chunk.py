"""The work on some whole samples of a shard, as steps that any engine can call: score, decide, keep.

A chunk is small, so that decoded pixels and model inputs in memory are bounded by what is in flight; what it
decides depends on its own samples alone, so chunk and batch sizes change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.core import ledger
from clipsieve.core.batch import Batch
from clipsieve.core.decide import BoundRule, Geometry, Unit, Verdicts, decide
from clipsieve.core.decode import has_known_format
from clipsieve.core.embed import Prompts, TextVectors
from clipsieve.core.layout import Mask, has_text_rows, kept_rows
from clipsieve.core.lazy import LazyBytes
from clipsieve.core.ledger import Score
from clipsieve.core.similarity import best_texts
from clipsieve.core.timing import StageTimes
from clipsieve.engines.bytestore import ByteStore, StoredBytes
from clipsieve.engines.filtering import apply_filter
from clipsieve.engines.prior import Prior
from clipsieve.engines.reread import SourceBytes, no_longer
from clipsieve.errors import CountsError
from clipsieve.plan import Plan

if TYPE_CHECKING:
    from clipsieve.core.contracts import Filter, Pixels, Scorer, Vectors

Prepare: TypeAlias = "Callable[[Pixels], Pixels]"
"""From an RGB image to a model's input, as ``Encoder.prepare`` does it; a model's weights have no part in it."""

MODEL_CHUNK_IMAGES = 64
"""Images a chunk gathers before it is closed: enough for two model batches, few enough to keep model inputs small."""

CHUNK_IMAGES = 256
"""The same without a model, where an image leaves only its scores: a third quicker by rows than chunks of 64."""

CHUNK_SAMPLES = 1024
"""Samples a chunk holds at most, for samples with few images or none."""


def geometry(batch: Batch, *, pairs: bool) -> Geometry:
    """Which images, content and, where asked for (they grow with the square), pairs the samples of a batch have."""
    has_text = has_text_rows(batch.table, batch.layout, batch.parts)
    bare = np.bincount(batch.parts.image_samples, minlength=batch.samples) == 0
    return Geometry(
        samples=batch.samples,
        image_samples=batch.parts.image_samples,
        pairs=batch.pairs if pairs else np.zeros((0, 2), dtype=np.int64),
        has_text=has_text,
        hollow=bare & ~has_text if batch.layout.invalid_rows == "drop" else None,
        surplus=batch.parts.surplus_images,
    )


@dataclass(frozen=True, kw_only=True)
class ImageWork:
    """What came of one image before the model: its bytes if they had to be fetched, the model's input, or the error."""

    data: bytes | None = None
    prepared: Pixels | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What came of a chunk before the model: small beside its rows, which can be cut into the same chunks again."""

    errors: Mapping[int, str]
    scores: Mapping[str, Score]
    encoded: Mask
    """Which images the model is to see, ``(images,)``."""


class Chunk:
    """Some whole samples of a shard on their way to a ledger part and the rows that stay."""

    def __init__(
        self,
        plan: Plan,
        batch: Batch,
        *,
        shard: int,
        number: int,
        first_row: int,
        first_sample: int,
        prior: Prior | None = None,
        times: StageTimes | None = None,
    ) -> None:
        self.plan = plan
        self.times = times or StageTimes()
        self.batch = batch
        self.shard = shard
        self.number = number
        self.first_row = first_row
        self.first_sample = first_sample
        self.errors = batch.errors
        self.encoded: Mask = np.zeros(batch.images, dtype=bool)
        self.scores: dict[str, Score] = {}
        for scorer in plan.scorers:
            units = self._units(scorer.unit)
            for name, type in scorer.columns.items():
                self.scores[name] = Score.empty(scorer.unit, type, units)
        for given in plan.given:
            self.scores[given] = Score.empty("image", pa.float64(), batch.images)
        self._open: Mask = np.ones(batch.images, dtype=bool)
        self.prior = prior
        if prior is not None:
            prior.check(batch)
            self.errors |= prior.errors
            for name, score in self.scores.items():
                prior.give(name, score)
            # What failed has no vector, and nothing more is to be known of it.
            for name in (*plan.given, *(name for scorer in plan.vector_scorers for name in scorer.columns)):
                of_units = batch.pairs if self.scores[name].unit == "pair" else np.arange(batch.images)[:, None]
                self.scores[name].computed[np.isin(of_units, list(prior.errors)).any(axis=1)] = True

    @cached_property
    def geometry(self) -> Geometry:
        """Which images, pairs (where a scorer looks at pairs) and content the samples have."""
        return geometry(self.batch, pairs=any(scorer.unit == "pair" for scorer in self.plan.scorers))

    def score_rows(self) -> None:
        """Runs the scorers that need rows only, and lets the rules on them close images to further scoring."""
        for scorer in self.plan.row_scorers:
            self._score(scorer, self.batch, np.arange(self._units(scorer.unit)))
        if not self.plan.recipe.score_all:
            self._open = self._decide(self.plan.rules[: self.plan.row_rules]).images

    def score_image(self, image: int, prepare: Prepare | None) -> ImageWork:
        """Fetches, decodes and scores one image up to the model's input; its pixels are gone on return.

        ``prepare`` makes that input, None where there is no model. Safe to call from several threads for different
        images.
        """
        if self.prior is not None:
            return self._score_missing(image, prepare)
        one = self.batch.one_image(image)
        with self.times.of("fetch"):
            data = one.bytes[0]
        needs_pixels = self._open[image] and (prepare is not None or self._reads_pixels)
        with self.times.of("decode"):
            if self.plan.recipe.check == "decode" or needs_pixels:
                rgb = one.pixels[0]
            else:
                rgb, _ = None, one.headers[0]
        place = np.array([image])
        if one.errors:
            for stage in self.plan.image_stages:
                self._score(stage.scorer, one, place)
            return self._failed(one, data)
        if not self._open[image]:
            return ImageWork()
        for stage in self.plan.image_stages:
            self._score(stage.scorer, one, place)
            if one.errors:  # a header that promised more than the pixels hold
                return self._failed(one, data)
            if not self.plan.recipe.score_all and not self._passes(stage.rules, image):
                return ImageWork()
        return ImageWork(data=_fetched(one, data), prepared=self._prepared(rgb, prepare))

    def _score_missing(self, image: int, prepare: Prepare | None) -> ImageWork:
        """Computes what an earlier run left out of one image; one that has all its scores is not read."""
        failed = image in self.errors
        if not (self._open[image] or failed):
            return ImageWork()
        was_decoded = self.plan.recipe.check == "decode" or self._has_pixel_scores(image)
        one = self.batch.one_image(image)
        for stage in self.plan.image_stages:
            if not all(self.scores[name].computed[image] for name in stage.scorer.columns):
                self._score(stage.scorer, one, np.array([image]))
                if one.errors and not failed:
                    return self._failed_later(one, was_decoded)
            if not (failed or self.plan.recipe.score_all or self._passes(stage.rules, image)):
                return ImageWork()
        if failed:
            return ImageWork(error=self.errors[image])
        if prepare is None or not self._lacks_vector[image]:
            return ImageWork()
        rgb = one.pixels[0]
        return self._failed_later(one, was_decoded) if one.errors else ImageWork(prepared=self._prepared(rgb, prepare))

    def _has_pixel_scores(self, image: int) -> bool:
        """Whether an earlier run has looked at the pixels of an image."""
        looked = [stage.scorer for stage in self.plan.image_stages if stage.scorer.reads == "pixels"]
        scored = any(self.scores[name].computed[image] for scorer in looked for name in scorer.columns)
        return scored or (self.known_vectors is not None and not np.isnan(self.known_vectors[image]).any())

    def _failed_later(self, one: Batch, was_decoded: bool) -> ImageWork:
        """An image of which an earlier run had seen the header alone fails now.

        Raises ``SourceError`` for one that was whole then.
        """
        if was_decoded:
            raise no_longer(one.parts.images[0], one.errors[0])
        return self._failed(one, one.bytes[0])

    def _prepared(self, rgb: Pixels | None, prepare: Prepare | None) -> Pixels | None:
        """The model's input, where there is a model and an image."""
        if prepare is None or rgb is None:
            return None
        with self.times.of("prepare for the model"):
            return prepare(rgb)

    @cached_property
    def _lacks_score(self) -> Mask:
        """Which images have no value yet of a score that needs vectors."""
        lacking = np.zeros(self.batch.images, dtype=bool)
        for scorer in self.plan.vector_scorers:
            for name in scorer.columns:
                missing = ~self.scores[name].computed
                lacking[self.batch.pairs[missing].ravel() if scorer.unit == "pair" else missing] = True
        return lacking

    @cached_property
    def _lacks_vector(self) -> Mask:
        """Which images must be encoded, for a score or to keep their vectors, and were not."""
        lacking: Mask = self._lacks_score | self.plan.keeps_vectors
        return lacking if self.known_vectors is None else lacking & np.isnan(self.known_vectors).any(axis=1)

    def _failed(self, one: Batch, data: bytes | None) -> ImageWork:
        # A path in the data may lead to any file of this machine: only what is an image, if a broken one, is copied.
        kept = self.plan.recipe.on_error == "keep" and data is not None and has_known_format(data)
        return ImageWork(data=_fetched(one, data) if kept else None, error=one.errors[0])

    def accept(self, work: Sequence[ImageWork], *, encodes: bool) -> dict[int, Pixels]:
        """Takes the work on all images in order, decides what needs no model, and gives the inputs to encode.

        ``encodes`` says whether there is a model at all.
        """
        self.errors |= {image: done.error for image, done in enumerate(work) if done.error is not None}
        surplus = self.batch.parts.surplus_images
        broken = {image: error for image, error in self.errors.items() if not surplus[image]}
        if broken and self.plan.recipe.on_error == "stop":
            image, error = next(iter(broken.items()))
            row = int(self.batch.parts.image_rows[image]) + self.first_row
            name = self.batch.parts.images[image].reference or "inline image"
            raise CountsError(
                f"stopped at shard {self.shard}, row {row} ({name}): {error}; "
                "fix it, or choose --on-error drop, drop-sample or keep"
            )
        wanted = np.ones(self.batch.images, dtype=bool)
        if not self.plan.recipe.score_all:
            wanted = self._settle(self.plan.early_rules).images
        if self.known_vectors is not None and encodes:
            self.encoded = wanted & self._lacks_score & ~np.isnan(self.known_vectors).any(axis=1)
        inputs = {
            image: done.prepared for image, done in enumerate(work) if wanted[image] and done.prepared is not None
        }
        self.encoded[list(inputs)] = True
        return inputs

    def found(self) -> Found:
        """What is known of the images by now, to go on elsewhere with the same rows."""
        return Found(errors=self.errors, scores=self.scores, encoded=self.encoded)

    def resume(self, found: Found) -> None:
        """Goes on from what was found of these rows elsewhere."""
        self.errors |= found.errors
        self.scores = dict(found.scores)
        self.encoded = found.encoded

    def texts(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The texts of the samples that have an encoded image, and the sample of each."""
        samples = np.unique(self.batch.parts.image_samples[self.encoded])
        chosen = np.flatnonzero(np.isin(self.batch.parts.text_samples, samples))
        return [self.batch.parts.texts[i] for i in chosen.tolist()], self.batch.parts.text_samples[chosen]

    def score_vectors(self, images: Vectors, texts: TextVectors | None, prompts: Prompts | None = None) -> None:
        """Runs the scorers that need vectors; ``images`` has a row an image, NaN where it was not encoded.

        ``prompts`` are those of the plan, where it has any.
        """
        self.batch.prompts = prompts
        self.batch.image_vectors = images
        if texts is not None:
            self.batch.text_vectors = texts
        scored = self.encoded.copy()
        scored[list(self.errors)] = True
        for scorer in self.plan.vector_scorers:
            ready = scored[self.batch.pairs].all(axis=1) if scorer.unit == "pair" else scored
            units = np.flatnonzero(ready & ~self.scores[next(iter(scorer.columns))].computed)
            if len(units):
                self._score(scorer, self.batch, units, among=True)

    @property
    def known_vectors(self) -> Vectors | None:
        """The image vectors of an earlier run, ``(images, dim)``, NaN where it has none."""
        return None if self.prior is None else self.prior.image_vectors

    def best_text_vectors(self) -> Vectors:
        """The vector of each image's best-matching text, ``(images, dim)``, NaN where there is none."""
        known = None if self.prior is None else self.prior.best_text_vectors
        if known is None:
            known = np.full((self.batch.images, self.batch.image_vectors.shape[1]), np.nan, dtype=np.float32)
        if not self.encoded.any():
            return known
        found = self.batch.text_vectors
        _, best = best_texts(self.batch.image_vectors, self.batch.parts.image_samples, found)
        told = self.encoded & (best >= 0)
        vectors = np.array(known)
        vectors[told] = found.vectors[best[told]]
        return vectors

    def finish(self, filters: Sequence[Filter], store: ByteStore) -> tuple[Verdicts, pa.Table]:
        """The verdicts by all local rules and then by ``filters``, and the ledger rows."""
        verdicts = self._settle(len(self.plan.rules))
        for one in filters:
            apply_filter(one, self, verdicts, store)
        table = ledger.part(
            shard=self.shard,
            first_row=self.first_row,
            first_sample=self.first_sample,
            parts=self.batch.parts,
            verdicts=verdicts,
            errors=self.errors,
            scores=self.scores,
        )
        return verdicts, table if self.prior is None else self.prior.carry(table)

    def kept(self, verdicts: Verdicts, store: ByteStore) -> Batch:
        """What stays, with the bytes that were fetched on the way."""
        kept = self.batch.kept(verdicts.images, verdicts.samples)
        kept.bytes = StoredBytes(
            store=store, keys=self.keys(verdicts), sources=kept.parts.images, reread=reread(kept, [(self, verdicts)])
        )
        return kept

    def keys(self, verdicts: Verdicts) -> list[tuple[int, int]]:
        """Under which the bytes of the images that stay are stored."""
        return [(self.number, image) for image in np.flatnonzero(verdicts.images).tolist()]

    def reasons(self, verdicts: Verdicts) -> list[str | None]:
        """For each row why it goes, None where it stays; an image in a list of others has no row to go with."""
        parts = self.batch.parts
        gone = ~kept_rows(parts, verdicts.images, verdicts.samples, self.batch.layout)
        reasons: list[str | None] = [None] * len(gone)
        for row in np.flatnonzero(gone).tolist():
            sample = int(parts.row_samples[row])
            reasons[row] = (
                "invalid row" if verdicts.samples[sample] else verdicts.sample_reasons[sample] or "nothing left"
            )
        for image in np.flatnonzero(gone[parts.image_rows]).tolist():
            own = verdicts.image_reasons[image] or self.errors.get(image)
            reasons[int(parts.image_rows[image])] = own or reasons[int(parts.image_rows[image])]
        return reasons

    def _units(self, unit: Unit) -> int:
        if unit == "pair":
            return len(self.batch.pairs)
        return self.batch.images if unit == "image" else self.batch.samples

    @property
    def _reads_pixels(self) -> bool:
        return any(stage.scorer.reads == "pixels" for stage in self.plan.image_stages)

    def _passes(self, rules: Sequence[BoundRule], image: int) -> bool:
        return all(bound.rule.passes(self.scores[bound.rule.name].values[[image]])[0] for bound in rules)

    def _score(self, scorer: Scorer, batch: Batch, units: npt.NDArray[np.int64], *, among: bool = False) -> None:
        """Puts the scores of ``batch`` in the places ``units``; ``among`` says that it has others beside those."""
        with self.times.of(", ".join(scorer.columns)):
            self._put(scorer.score(batch), units, among=among)

    def _put(self, columns: Any, units: npt.NDArray[np.int64], *, among: bool = False) -> None:
        for name, column in columns.items():
            self.scores[name].put(units, column.take(pa.array(units)) if among else column)

    def _decide(self, rules: Sequence[BoundRule]) -> Verdicts:
        values = {name: score.values for name, score in self.scores.items()}
        return decide(rules, values, self.geometry, self.errors, self.plan.recipe.on_error)

    def _settle(self, rules: int) -> Verdicts:
        """Decides by the first ``rules`` rules, computing a kept ratio at its place among them."""
        ratio = self.plan.kept_ratio
        if ratio is not None and self.plan.kept_ratio_at <= rules:
            self.batch.alive = self._decide(self.plan.rules[: self.plan.kept_ratio_at]).images
            self._put(ratio.score(self.batch), np.arange(self.batch.samples))
        return self._decide(self.plan.rules[:rules])


def reread(kept: Batch, of: Sequence[tuple[Chunk, Verdicts]]) -> LazyBytes | None:
    """The bytes of what stays of some chunks from the source again, where an earlier run had fetched them."""
    known = [(chunk.prior, verdicts.images) for chunk, verdicts in of if chunk.prior is not None]
    if not known:
        return None
    sizes = np.concatenate([prior.sizes[images] for prior, images in known])
    hashes = np.concatenate([prior.hashes[images] for prior, images in known]).tolist()
    return SourceBytes(kept.parts.images, kept.errors, sizes, hashes)


def _fetched(one: Batch, data: bytes | None) -> bytes | None:
    """The bytes of a single image, if they are not in its row."""
    return data if one.parts.images[0].data is None else None


def chunks(
    plan: Plan, shard: int, batch: Batch, prior: Prior | None = None, times: StageTimes | None = None
) -> Iterator[Chunk]:
    """Cuts a shard's batch into chunks of whole samples, each of few images or of one large sample.

    There is always at least one, if only an empty one. ``prior`` is what an earlier run found of the shard.
    """
    images = MODEL_CHUNK_IMAGES if plan.needs_encoder else CHUNK_IMAGES
    ends = np.searchsorted(batch.parts.image_samples, np.arange(batch.samples), side="right")
    start = 0
    number = 0
    while start < batch.samples or number == 0:
        images_before = int(ends[start - 1]) if start else 0
        full = int(np.searchsorted(ends, images_before + images)) + 1
        stop = min(full, start + CHUNK_SAMPLES, batch.samples)
        yield Chunk(
            plan,
            batch.slice_samples(start, stop),
            shard=shard,
            number=number,
            first_row=int(batch.parts.sample_rows[start]) if batch.samples else 0,
            first_sample=start,
            prior=None if prior is None else prior.of_samples(start, stop),
            times=times,
        )
        start, number = stop, number + 1
