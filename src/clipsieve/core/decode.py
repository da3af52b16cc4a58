"""From encoded bytes to RGB pixels; the only decoder, with its limits, EXIF rotation and odd modes.

Pillow reads, in its own pixels. Whatever hostile bytes make it do ends as an ``ImageError`` of a few words.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags
from PIL import Image as PILImage

from clipsieve.errors import ImageError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Pixels

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM")
"""What photographs come in, MPO included in JPEG; other plugins of Pillow (EPS runs Ghostscript) are never asked."""

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: Pillow's own ``MAX_IMAGE_PIXELS``, 256 MiB of RGB."""

MAX_SCANS = 256
"""Most scans of a JPEG that is decoded. Progressive photographs have about ten; each costs a pass over all pixels and
takes only some bytes."""

_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
"""How a scan of a JPEG begins (marker, length, number of components), which nothing within one can look like."""

_TRANSPOSES = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}
"""What makes an image upright, by EXIF orientation (EXIF 3.0, tag 274); from 5 on width and height change places."""

# Pillow warns and logs of malformed files, which either decode all the same (a bad MPO header, odd TIFF tags) or
# end as an ImageError. For the whole process, because `warnings.catch_warnings` is not safe between threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Width and height in pixels after EXIF rotation, and the format's name (``JPEG``)."""

    width: int
    height: int
    format: str


def read_header(data: bytes, *, frame: int = 0) -> Header:
    """Size and format of an encoded image, without decoding its pixels.

    Raises ``ImageError`` as ``decode`` does, except for what only the pixels show (a truncated file).
    """
    image = _open(data, frame)
    width, height = image.size
    # Pillow gives the size of a TIFF as already rotated.
    if image.format != "TIFF" and _header_orientation(image, data) >= 5:
        width, height = height, width
    return Header(width=width, height=height, format=str(image.format))


def decode(data: bytes, *, frame: int = 0) -> Pixels:
    """The pixels of an encoded image as ``to_rgb`` gives them, ``(h, w, 3)`` uint8; the first frame of several.

    Raises ``ImageError``: ``undecodable: ...`` for what is truncated, broken or no image, and ``too large: ...``
    for more than ``MAX_PIXELS``, which is known from the header before any pixel takes memory. Broken bytes that
    leave a JPEG readable to libjpeg (wrong pixels, right length) are not noticed.
    """
    image = _open(data, frame)
    if image.format in ("JPEG", "MPO") and next(islice(_SCAN.finditer(data), MAX_SCANS, None), None) is not None:
        raise ImageError(f"undecodable: a JPEG of more than {MAX_SCANS} scans")
    if image.format == "JPEG" and image.mode in ("RGB", "L") and _orientation(image) == 1:
        pixels = _plain_jpeg(data)
        if pixels is not None:
            return pixels
    return to_rgb(image)


def _plain_jpeg(data: bytes) -> Pixels | None:
    """The same pixels straight from libjpeg-turbo; None where it objects to anything, for Pillow to judge.

    Without Pillow's copies, and without the interpreter's lock: two threads decode twice as much.
    """
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    pixels.flags.writeable = False
    return pixels


def to_rgb(image: PILImage.Image) -> Pixels:
    """A Pillow image as upright RGB, ``(h, w, 3)`` uint8, read-only.

    EXIF orientation is applied. Every kind of transparency is laid over white. 16-bit gray keeps its high byte, as
    OpenCV and libpng do; 32-bit integers are read as such when they fit 16 bits. CMYK and Lab are Pillow's own
    conversions (Lab through LittleCMS to sRGB); embedded colour profiles are not applied. Floating point pixels and
    larger integers are refused, since nothing says which value is white. Raises ``ImageError``.
    """
    with _reading(image.format or "image"):
        image.load()
    orientation = _orientation(image)
    if orientation in _TRANSPOSES:
        image = image.transpose(_TRANSPOSES[orientation])
    if image.mode == "F" or image.mode.startswith("I"):
        image = _high_byte(image)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = PILImage.alpha_composite(PILImage.new("RGBA", over.size, "white"), over)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def check_rgb(array: npt.NDArray[Any]) -> Pixels:
    """An array that is an RGB image already. Raises ``ImageError`` for any but ``(h, w, 3)`` uint8 with pixels."""
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise ImageError(f"undecodable: an array of {array.dtype} and shape {array.shape}, not (h, w, 3) uint8")
    return array


def has_known_format(data: bytes) -> bool:
    """Whether encoded bytes begin like an image of ``FORMATS``, broken or not."""
    return next(_formats(data), None) is not None


def _formats(data: bytes) -> Iterator[str]:
    PILImage.init()
    for name in FORMATS:
        _, accepts = PILImage.OPEN[name]
        if accepts is not None and accepts(data[:16]) is True:
            yield name


def _open(data: bytes, frame: int) -> PILImage.Image:
    # Not Image.open: it refuses a huge image without saying its size, and one that it cannot read without saying
    # what it took it for.
    for name in _formats(data):
        factory, _ = PILImage.OPEN[name]
        with _reading(name):
            image = factory(io.BytesIO(data), "")
        _check_size(image)
        if frame:
            with _reading(name):
                frames = getattr(image, "n_frames", 1)
                if 0 <= frame < frames:
                    image.seek(frame)
            if not 0 <= frame < frames:
                raise ImageError(f"undecodable: no frame {frame}, this {name} has {frames}")
            _check_size(image)
        return image
    raise ImageError("undecodable: not an image of a known format")


def _check_size(image: PILImage.Image) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"undecodable: {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError(f"too large: {width} x {height} = {width * height:,} pixels, limit {MAX_PIXELS:,}")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises while it reads foreign bytes into an ``ImageError``; hold nothing else in it.

    Its plugins raise nearly every built-in exception, struct.error and zlib.error over hostile files.
    """
    try:
        yield
    except PILImage.DecompressionBombError:
        raise ImageError(f"too large: more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise ImageError(f"undecodable: not enough memory for this {name}") from None
    except Exception as failure:
        truncated = isinstance(failure, EOFError) or "truncated" in str(failure).lower()
        raise ImageError(f"undecodable: {'truncated' if truncated else 'broken or unsupported'} {name}") from failure


def _orientation(image: PILImage.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels, which stay as they are
        return 1


def _header_orientation(image: PILImage.Image, data: bytes) -> int:
    # A PNG may carry its EXIF or XMP behind the pixels, and Pillow decodes them all to look there.
    if image.format == "PNG" and not any(mark in data for mark in (b"eXIf", b"Raw profile type", b"adobe.xmp")):
        return 1
    return _orientation(image)


def _high_byte(image: PILImage.Image) -> PILImage.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError(f"undecodable: 32-bit pixels (mode {image.mode}) without a known white")
    gray = (values >> 8).astype(np.uint8)
    # The transparent value of a PNG, over white.
    gray[values == image.info.get("transparency", -1)] = 255
    return PILImage.fromarray(gray)
