"""Damages images and their bytes, one small function a fault, in ways whose effect on the scores is known."""

from __future__ import annotations

import io
import math
import random
from typing import Literal

import numpy as np
import zxingcpp
from PIL import Image, ImageEnhance, ImageFilter

Damage = Literal["truncated", "empty", "garbage"]
DAMAGES: tuple[Damage, ...] = ("truncated", "empty", "garbage")

_QUIET_ZONE = 4  # White modules around a QR code, as ISO/IEC 18004 asks for.


def blurred(image: Image.Image, rng: random.Random) -> Image.Image:
    """Blurs an image until its Laplacian variance is far below 100, while its scene can still be made out."""
    return image.filter(ImageFilter.GaussianBlur(rng.choice((2.5, 3, 4, 5))))


def with_qr_code(image: Image.Image, rng: random.Random, *, area: float) -> tuple[Image.Image, float]:
    """Pastes a QR code with its quiet zone into a random corner; returns the image and the code's share of its area.

    `area` is the share that is wanted, without the quiet zone, from 0 to 1. The share that results differs from it
    where the code would be less than two pixels a module or, with its quiet zone, would not fit the image.
    """
    code = zxingcpp.create_barcode(f"https://example.org/{rng.randrange(10**6)}", zxingcpp.BarcodeFormat.QRCode)
    modules = np.array(code.to_image(scale=1, add_quiet_zones=False), np.uint8)
    framed = Image.fromarray(np.pad(modules, _QUIET_ZONE, constant_values=255))
    wanted = math.sqrt(area * image.width * image.height) / modules.shape[0]
    scale = max(2.0, min(wanted, min(image.size) / framed.width))
    side = int(framed.width * scale)
    left = rng.choice((0, image.width - side))
    top = rng.choice((0, image.height - side))
    marked = image.copy()
    marked.paste(framed.resize((side, side), Image.Resampling.NEAREST).convert("RGB"), (left, top))
    code_side = side * modules.shape[0] / framed.width
    return marked, code_side**2 / (image.width * image.height)


def near_copy(image: Image.Image, rng: random.Random) -> tuple[bytes, str]:
    """Encodes a copy that a person would call the same image; returns JPEG bytes and what was done to it."""
    match rng.choice(("recompressed", "resized", "brightened")):
        case "recompressed":
            return encoded(image, quality=80), "recompressed"
        case "resized":
            smaller = image.resize((image.width * 94 // 100, image.height * 94 // 100), Image.Resampling.BICUBIC)
            return encoded(smaller), "resized"
        case _:
            return encoded(ImageEnhance.Brightness(image).enhance(1.04)), "brightened"


def undecodable(data: bytes, rng: random.Random, *, how: Damage) -> bytes:
    """Spoils an encoded image so that no decoder can read all of it."""
    match how:
        case "truncated":
            return data[: len(data) * rng.randint(20, 70) // 100]
        case "empty":
            return b""
        case "garbage":
            return rng.randbytes(len(data) // 10)


def encoded(image: Image.Image, *, file_format: Literal["JPEG", "PNG"] = "JPEG", quality: int = 90) -> bytes:
    """Encodes an image as PNG, or as JPEG of a quality from 1 to 95."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, quality=quality, compress_level=1)
    return buffer.getvalue()
