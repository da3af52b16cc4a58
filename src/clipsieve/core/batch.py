"""Whole samples with views of them (bytes, pixels, vectors), each made once and only when asked for.

``Batch`` is what scorers and writers see. The engine fills the vectors from its own pipeline; on plain lists
every view is made on demand, by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image as PILImage

from clipsieve.core.decode import Header, check_rgb, decode, read_header, to_rgb
from clipsieve.core.embed import LongText, Prompt, Prompts, TextVectors, embed_images, embed_prompts, embed_texts
from clipsieve.core.fetch import ImageSource, from_cell
from clipsieve.core.layout import Layout, Mask, Parts, keep_rows, numbers, parts
from clipsieve.core.lazy import Chosen
from clipsieve.errors import ImageError, ModelError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder, Pixels, Rows, Vectors

T = TypeVar("T")


class view(Generic[T]):  # noqa: N801 - read as a decorator
    """An attribute made when first read, or set by hand.

    Not ``functools.cached_property``: on Python 3.11 all instances share its lock, so that threads would take turns
    at decoding.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, batch: None, owner: type) -> view[T]: ...
    @overload
    def __get__(self, batch: Batch, owner: type) -> T: ...
    def __get__(self, batch: Batch | None, owner: type) -> T | view[T]:
        if batch is None:
            return self
        if self.name not in batch.__dict__:
            batch.__dict__[self.name] = self.make(batch)
        made: T = batch.__dict__[self.name]
        return made

    def __set__(self, batch: Batch, value: T) -> None:
        batch.__dict__[self.name] = value


class Batch:
    """Some whole samples of a source.

    ``table`` holds their rows and ``parts`` where samples, images and texts are in them. ``errors`` maps an image
    to why it failed; a failed image is None among ``bytes``, ``headers`` and ``pixels`` and a row of NaN among
    ``image_vectors``. ``alive`` marks the images that have passed the rules so far, ``(images,)``.
    """

    def __init__(
        self,
        *,
        table: pa.Table,
        layout: Layout,
        parts: Parts,
        encoder: Encoder | None = None,
        long_text: LongText = "truncate",
        opened: Mapping[int, Pixels] | None = None,
    ) -> None:
        self.table = table
        self.layout = layout
        self.parts = parts
        self.encoder = encoder
        self.long_text = long_text
        self.prompts: Prompts | None = None
        self.errors: dict[int, str] = {}
        self.alive: Mask = np.ones(len(parts.images), dtype=bool)
        self._opened = dict(opened or {})

    @classmethod
    def from_rows(
        cls, rows: Rows, layout: Layout, encoder: Encoder | None = None, long_text: LongText = "truncate"
    ) -> Batch:
        """The batch of a shard's rows, as a reader gives them."""
        found = parts(rows.table, layout, rows.origins, rows.errors, rows.starts, rows.kept)
        return cls(table=rows.table, layout=layout, parts=found, encoder=encoder, long_text=long_text)

    @classmethod
    def from_lists(
        cls,
        images: Sequence[Any],
        texts: Sequence[str | Sequence[str] | None] | None = None,
        *,
        encoder: Encoder | None = None,
        long_text: LongText = "truncate",
    ) -> Batch:
        """A sample for each item of ``images``: an image (path, bytes, PIL image, ``(h, w, 3)`` uint8 RGB) or a
        list of them, with its text, list of texts or None."""
        if isinstance(images, (str, bytes)):
            raise TypeError("images is a list of images; put a single one in brackets: [image]")
        listed = [list(item) if isinstance(item, (list, tuple)) else [item] for item in images]
        said = [[text] if isinstance(text, str) else list(text or ()) for text in texts or [None] * len(listed)]
        if len(said) != len(listed):
            raise ValueError(f"as many texts as images are needed, got {len(said)} for {len(listed)}")
        flat = [image for item in listed for image in item]
        opened: dict[int, Pixels] = {}
        sources = [ImageSource()] * len(flat)
        for i, image in enumerate(flat):
            try:
                if isinstance(image, np.ndarray):
                    opened[i] = check_rgb(image)
                elif isinstance(image, PILImage.Image):
                    opened[i] = to_rgb(image)
                else:
                    sources[i] = from_cell(image, "")
            except ImageError as failure:
                sources[i] = ImageSource(error=str(failure))
        counts = np.array([len(item) for item in listed], dtype=np.int64)
        samples = np.arange(len(listed), dtype=np.int64)
        spoken = [(s, text) for s, item in enumerate(said) for text in item if text and text.strip()]
        found = Parts(
            sample_ids=[None] * len(listed),
            sample_rows=samples,
            row_samples=samples,
            images=sources,
            image_rows=np.repeat(samples, counts),
            image_samples=np.repeat(samples, counts),
            image_numbers=np.concatenate([np.arange(n, dtype=np.int64) for n in counts] or [samples]),
            texts=[text for _, text in spoken],
            text_rows=np.array([s for s, _ in spoken], dtype=np.int64),
        )
        return cls(
            table=pa.table({}), layout=Layout(kind="lists"), parts=found,
            encoder=encoder, long_text=long_text, opened=opened,
        )  # fmt: skip

    def one_image(self, image: int) -> Batch:
        """A batch of a single image of this one, without texts: what a pixel scorer is handed by the engine."""
        p, one = self.parts, slice(image, image + 1)
        zero = np.zeros(1, dtype=np.int64)
        found = Parts(
            sample_ids=[p.sample_ids[int(p.image_samples[image])]],
            sample_rows=zero,
            row_samples=zero,
            images=p.images[one],
            image_rows=zero,
            image_samples=zero,
            image_numbers=p.image_numbers[one],
            texts=[],
            text_rows=zero[:0],
        )
        opened = {0: self._opened[image]} if image in self._opened else None
        return Batch(table=self.table[:0], layout=self.layout, parts=found, encoder=self.encoder, opened=opened)

    def slice_samples(self, start: int, stop: int) -> Batch:
        """The batch of samples ``start`` to ``stop``, sharing this one's rows and texts."""
        p = self.parts
        rows = np.searchsorted(p.row_samples, [start, stop]).tolist()
        images = np.searchsorted(p.image_samples, [start, stop]).tolist()
        texts = np.searchsorted(p.text_samples, [start, stop]).tolist()
        found = Parts(
            sample_ids=p.sample_ids[start:stop],
            sample_rows=p.sample_rows[start:stop] - rows[0],
            row_samples=p.row_samples[rows[0] : rows[1]] - start,
            images=p.images[images[0] : images[1]],
            image_rows=p.image_rows[images[0] : images[1]] - rows[0],
            image_samples=p.image_samples[images[0] : images[1]] - start,
            image_numbers=p.image_numbers[images[0] : images[1]],
            texts=p.texts[texts[0] : texts[1]],
            text_rows=p.text_rows[texts[0] : texts[1]] - rows[0],
            surplus=None if p.surplus is None else p.surplus[rows[0] : rows[1]],
        )
        table = self.table.slice(rows[0], rows[1] - rows[0])
        piece = Batch(table=table, layout=self.layout, parts=found, encoder=self.encoder, long_text=self.long_text)
        piece.errors = {i - images[0]: e for i, e in self.errors.items() if images[0] <= i < images[1]}
        if "bytes" in self.__dict__:
            piece.bytes = self.bytes[images[0] : images[1]]
        return piece

    def kept(self, keep_images: Mask, keep_samples: Mask) -> Batch:
        """The batch of what stays: ``keep_images`` ``(images,)`` and ``keep_samples`` ``(samples,)``."""
        table, found = keep_rows(self.table, self.layout, self.parts, keep_images, keep_samples)
        batch = Batch(table=table, layout=self.layout, parts=found, encoder=self.encoder, long_text=self.long_text)
        images = np.flatnonzero(keep_images & keep_samples[self.parts.image_samples]).tolist()
        batch.errors = {new: self.errors[old] for new, old in enumerate(images) if old in self.errors}
        if "bytes" in self.__dict__:
            batch.bytes = Chosen(self.bytes, images)
        return batch

    def with_table(self, table: pa.Table) -> Batch:
        """The batch with other columns in its rows; errors, and bytes that are there already, are carried over."""
        batch = Batch(
            table=table, layout=self.layout, parts=self.parts, encoder=self.encoder, long_text=self.long_text
        )  # fmt: skip
        batch.errors = self.errors
        if "bytes" in self.__dict__:
            batch.bytes = self.bytes
        return batch

    @classmethod
    def concat(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of several, in order, of one layout; views are not carried over, errors are."""
        offsets = np.cumsum([(0, 0, 0)] + [(b.table.num_rows, b.samples, b.images) for b in batches], axis=0)
        found = [(b.parts, *offset) for b, offset in zip(batches, offsets.tolist(), strict=False)]
        joined = Parts(
            sample_ids=[i for p, *_ in found for i in p.sample_ids],
            sample_rows=np.concatenate([p.sample_rows + row for p, row, _, _ in found]),
            row_samples=np.concatenate([p.row_samples + sample for p, _, sample, _ in found]),
            images=[image for p, *_ in found for image in p.images],
            image_rows=np.concatenate([p.image_rows + row for p, row, _, _ in found]),
            image_samples=np.concatenate([p.image_samples + sample for p, _, sample, _ in found]),
            image_numbers=np.concatenate([p.image_numbers for p, *_ in found]),
            texts=[text for p, *_ in found for text in p.texts],
            text_rows=np.concatenate([p.text_rows + row for p, row, _, _ in found]),
        )
        batch = cls(table=pa.concat_tables([b.table for b in batches]), layout=batches[0].layout, parts=joined)
        for b, (_, _, image) in zip(batches, offsets.tolist(), strict=False):
            batch.errors |= {image + i: error for i, error in b.errors.items()}
        return batch

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.parts.sample_ids)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.parts.images)

    @view
    def bytes(self) -> Sequence[bytes | None]:
        """Encoded bytes of each image, as stored; None where there are none."""
        return [None if i in self._opened else self._try(i, self.parts.images[i].read) for i in range(self.images)]

    @view
    def headers(self) -> Sequence[Header | None]:
        """Size and format of each image, after EXIF rotation, without decoding pixels."""
        return [self._header(i) for i in range(self.images)]

    @view
    def pixels(self) -> Sequence[Pixels | None]:
        """RGB of each image, ``(h, w, 3)`` uint8."""
        return [self._pixels(i) for i in range(self.images)]

    @view
    def prepared(self) -> Sequence[Pixels | None]:
        """Each image at the model's input size, ``(H, W, 3)`` uint8."""
        encoder = self._needed_encoder()
        return [None if rgb is None else encoder.prepare(rgb) for rgb in self.pixels]

    @view
    def image_vectors(self) -> Vectors:
        """Unit vectors, ``(images, dim)`` float32; a row of NaN where an image failed or was not encoded."""
        return embed_images(self._needed_encoder(), self.prepared)

    @view
    def text_vectors(self) -> TextVectors:
        """Unit vectors of the texts under the long-text policy; see ``TextVectors``."""
        return embed_texts(self._needed_encoder(), self.parts.texts, self.parts.text_samples, self.long_text)

    def prompted(self, prompts: Sequence[Prompt]) -> Prompts:
        """What the model makes of ``prompts``: the engine embeds them once a run, on plain lists they are embedded
        here."""
        return self.prompts or embed_prompts(self._needed_encoder(), prompts)

    @view
    def pairs(self) -> npt.NDArray[np.int64]:
        """Every pair of images of one sample, ``(pairs, 2)``, in the order (0, 1), (0, 2), (1, 2)."""
        samples = self.parts.image_samples
        # An image goes with each of those that follow it in its sample.
        following = np.searchsorted(samples, samples, side="right") - np.arange(self.images) - 1
        first = np.repeat(np.arange(self.images), following)
        return np.stack([first, first + 1 + numbers(following)], axis=1)

    def _header(self, image: int) -> Header | None:
        if image in self._opened:
            height, width = self._opened[image].shape[:2]
            return Header(width=width, height=height, format="array")
        data, frame = self.bytes[image], self.parts.images[image].frame
        return None if data is None else self._try(image, lambda: read_header(data, frame=frame))

    def _pixels(self, image: int) -> Pixels | None:
        if image in self._opened:
            return self._opened[image]
        data, frame = self.bytes[image], self.parts.images[image].frame
        return None if data is None else self._try(image, lambda: decode(data, frame=frame))

    def _try(self, image: int, view: Callable[[], T]) -> T | None:
        try:
            return view()
        except ImageError as failure:
            self.errors[image] = str(failure)
            return None

    def _needed_encoder(self) -> Encoder:
        if self.encoder is None:
            raise ModelError("this score needs a model; give one, for example model='openai/clip-vit-base-patch32'")
        return self.encoder
