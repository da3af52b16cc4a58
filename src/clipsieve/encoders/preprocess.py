"""A model's own image preprocessing, reproduced on 8-bit RGB: resize with Pillow, crop the centre, keep uint8.

Of a very long image only the part that the crop shows is resized: 1 x 5000 pixels, which would become 224 x 1,120,000,
cost no more than a square. What a model asks for and this file does not know is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipsieve.errors import ModelError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Pixels

PROCESSORS = {
    "CLIPImageProcessor",
    "SiglipImageProcessor",
    "ChineseCLIPImageProcessor",
    "ViTImageProcessor",
    "BlipImageProcessor",
}
"""The processors of transformers whose steps are these, in this order: resize, centre crop, rescale, normalise."""

STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
VALUES = {"size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std"}
NOTES = {
    "image_processor_type", "processor_class", "feature_extractor_type", "default_to_square", "data_format",
    "input_data_format",
}  # fmt: skip
"""Settings that change nothing here: names of classes, and the order of axes."""


WHOLE = 16
"""Up to so many times the crop's area an enlarged image is made whole: exact, and quick enough."""

REACH = 4
"""Source pixels beyond the resized stretch that decide its edge when enlarging: 3 for Lanczos, and one to spare."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a model sees an image.

    It is resized by ``resample`` so that its shortest edge is ``shortest_edge`` pixels, or to exactly ``height`` x
    ``width`` when that is None; then its centre of ``height`` x ``width`` pixels is cut out. The model gets
    ``(pixel * scale - mean) / std``, a value of ``mean`` and ``std`` for each of red, green and blue.
    """

    height: int
    width: int
    shortest_edge: int | None
    resample: Image.Resampling
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def prepare(self, rgb: Pixels) -> Pixels:
        """``(h, w, 3)`` uint8 to ``(height, width, 3)`` uint8; black surrounds an image smaller than the crop."""
        if self.shortest_edge is None:
            return np.asarray(Image.fromarray(rgb).resize((self.width, self.height), self.resample))
        h, w = rgb.shape[:2]
        long = int(self.shortest_edge * max(h, w) / min(h, w))  # Rounded down, as transformers and torchvision do.
        tall, wide = (long, self.shortest_edge) if w <= h else (self.shortest_edge, long)
        top, left = (tall - self.height) // 2, (wide - self.width) // 2
        if tall * wide <= max(h * w, WHOLE * self.height * self.width):
            image = Image.fromarray(rgb).resize((wide, tall), self.resample)
        else:
            rows, y, (upper, lower) = _shown(h, tall, top, self.height)
            columns, x, (first, last) = _shown(w, wide, left, self.width)
            image = Image.fromarray(rgb[rows, columns])
            # Width first, as Pillow does when it enlarges; given both axes of a part, it may choose the other order,
            # and the clipping to 8 bits in between would show.
            image = image.resize((x.stop - x.start, image.height), self.resample, (first, 0, last, image.height))
            image = image.resize((image.width, y.stop - y.start), self.resample, (0, upper, image.width, lower))
            top, left = top - y.start, left - x.start
        return np.asarray(image.crop((left, top, left + self.width, top + self.height)))


def _shown(size: int, enlarged: int, start: int, crop: int) -> tuple[slice, slice, tuple[float, float]]:
    """One axis of enlarging ``size`` pixels to ``enlarged`` and showing ``crop`` of these from ``start`` on.

    Gives the source pixels that matter, the enlarged pixels that they make, and where these begin and end among the
    source pixels that matter.
    """
    made = slice(max(start, 0), min(start + crop, enlarged))
    begin, end = made.start * size / enlarged, made.stop * size / enlarged
    needed = slice(max(int(begin) - REACH, 0), min(int(end) + REACH + 1, size))
    return needed, made, (begin - needed.start, end - needed.start)


def read_preprocessing(folder: Path, name: str) -> Preprocessing:
    """The preprocessing of the model in ``folder``, with the defaults of its processor's class filled in.

    Raises ``ModelError``, which calls the model ``name``, when it asks for anything that is not reproduced here.
    """
    from transformers import AutoImageProcessor

    try:
        # `use_fast` chooses the class that needs no torchvision; the settings of both are the same.
        processor = AutoImageProcessor.from_pretrained(
            folder, use_fast=False, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError, TypeError) as failure:
        raise ModelError(f"model {name}: its image preprocessing cannot be read: {first_line(failure)}") from failure
    try:
        return _understood(processor.to_dict())
    except ModelError as failure:
        raise ModelError(f"model {name}: {failure}") from None


def first_line(failure: Exception) -> str:
    """The first line of another library's message, for a message of one line."""
    return str(failure).strip().split("\n", 1)[0]


def _understood(settings: Mapping[str, Any]) -> Preprocessing:
    kind = str(settings["image_processor_type"]).removesuffix("Fast").removesuffix("Pil")
    if kind.startswith("Siglip2"):
        raise ModelError("NaFlex models see images of varying sizes and are not supported; take a fixed-size SigLIP 2")
    if kind not in PROCESSORS:
        raise ModelError(
            f"{kind} is a preprocessing that is not reproduced here; known are {', '.join(sorted(PROCESSORS))}"
        )
    asked = {key for key, value in settings.items() if not key.startswith("_") and value not in (None, False)}
    if unknown := asked - STEPS - VALUES - NOTES:
        raise ModelError(f"its preprocessing sets {', '.join(sorted(unknown))}, which is not reproduced here")
    if "do_resize" not in asked:
        raise ModelError("its preprocessing does not resize, so images would have different sizes")

    size = {key: value for key, value in dict(settings["size"]).items() if value is not None}
    crop = dict(settings["crop_size"]) if "do_center_crop" in asked else None
    if set(size) == {"shortest_edge"} and crop is not None:
        shortest_edge = int(size["shortest_edge"])
    elif set(size) == {"height", "width"} and crop in (None, size):
        shortest_edge, crop = None, size
    else:
        raise ModelError(f"its preprocessing resizes to {size} and crops to {crop}, which is not reproduced here")
    resample = Image.Resampling(settings["resample"])
    if resample in (Image.Resampling.NEAREST, Image.Resampling.BOX):
        raise ModelError(f"its preprocessing resizes by {resample.name.lower()}, which is not reproduced here")
    normalised = "do_normalize" in asked
    return Preprocessing(
        height=int(crop["height"]),
        width=int(crop["width"]),
        shortest_edge=shortest_edge,
        resample=resample,
        scale=float(settings["rescale_factor"]) if "do_rescale" in asked else 1.0,
        mean=_per_colour(settings["image_mean"]) if normalised else (0.0, 0.0, 0.0),
        std=_per_colour(settings["image_std"]) if normalised else (1.0, 1.0, 1.0),
    )


def _per_colour(values: Any) -> tuple[float, float, float]:
    red, green, blue = [values] * 3 if isinstance(values, float) else values
    return float(red), float(green), float(blue)
