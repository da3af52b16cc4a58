"""What the pixels of every kind of file are, and what becomes of files that have none."""

from __future__ import annotations

import io
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, ImageSequence

from clipsieve.core.decode import MAX_PIXELS, MAX_SCANS, Header, decode, read_header, to_rgb
from clipsieve.errors import ImageError

ODD = Path(__file__).parents[2].parent / "shared" / "data" / "photos" / "odd"

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def plain(mode: str, color: Any) -> Image.Image:
    return Image.new(mode, (4, 3), color)


def palette(*colors: int) -> Image.Image:
    """An image all of the palette's first colour."""
    image = plain("P", 0)
    image.putpalette(colors)
    return image


def noise(width: int = 48, height: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x112] = orientation
    return block


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises ``width`` x ``height`` and that holds a few bytes."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "format", "options", "expected"),
    [
        (plain("1", 1), "PNG", {}, WHITE),
        (plain("L", 100), "PNG", {}, (100, 100, 100)),
        (plain("L", 100), "PNG", {"transparency": 100}, WHITE),
        (plain("LA", (0, 51)), "PNG", {}, (204, 204, 204)),
        (palette(255, 0, 0), "PNG", {}, (255, 0, 0)),
        (palette(255, 0, 0), "PNG", {"transparency": 0}, WHITE),
        (palette(255, 0, 0), "PNG", {"transparency": bytes([51])}, (255, 204, 204)),
        (palette(255, 0, 0), "GIF", {}, (255, 0, 0)),
        (palette(255, 0, 0), "GIF", {"transparency": 0}, WHITE),
        (plain("RGB", (10, 20, 30)), "PNG", {}, (10, 20, 30)),
        (plain("RGB", (10, 20, 30)), "PNG", {"transparency": (10, 20, 30)}, WHITE),
        (plain("RGB", (10, 20, 30)), "BMP", {}, (10, 20, 30)),
        (plain("RGB", (10, 20, 30)), "PPM", {}, (10, 20, 30)),
        (plain("RGB", (10, 20, 30)), "JPEG2000", {"irreversible": False}, (10, 20, 30)),
        (plain("RGBA", (255, 0, 0, 0)), "PNG", {}, WHITE),
        (plain("RGBA", (0, 0, 0, 51)), "WEBP", {"lossless": True}, (204, 204, 204)),
        (plain("RGBA", (0, 0, 0, 255)), "TIFF", {}, BLACK),
        (plain("I;16", 0xFFFF), "PNG", {}, WHITE),
        (plain("I;16", 0x80FF), "PNG", {}, (128, 128, 128)),
        (plain("I;16", 0x0100), "TIFF", {}, (1, 1, 1)),
        (plain("I;16B", 0x8000), "TIFF", {}, (128, 128, 128)),
        (plain("I", 0x8000), "TIFF", {}, (128, 128, 128)),
        (plain("CMYK", (0, 255, 255, 0)), "TIFF", {}, (255, 0, 0)),
        (plain("CMYK", (0, 0, 0, 255)), "JPEG", {}, BLACK),
    ],
)
def test_every_mode_becomes_rgb(
    image: Image.Image, format: str, options: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    data = encode(image, format, **options)

    rgb = decode(data)

    assert (rgb.shape, rgb.dtype) == ((3, 4, 3), np.uint8)
    assert np.unique(rgb.reshape(-1, 3), axis=0).tolist() == [list(expected)]
    assert read_header(data) == Header(width=4, height=3, format=format)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (plain("HSV", (0, 255, 255)), (255, 0, 0)),
        (plain("YCbCr", (255, 128, 128)), WHITE),
        (plain("RGBX", (10, 20, 30, 0)), (10, 20, 30)),
        (plain("RGBa", (0, 0, 0, 51)), (204, 204, 204)),
        (plain("PA", (0, 0)), WHITE),
    ],
)
def test_modes_that_only_exist_in_memory(image: Image.Image, expected: tuple[int, int, int]) -> None:
    assert np.unique(to_rgb(image).reshape(-1, 3), axis=0).tolist() == [list(expected)]


def test_lab_red_is_red() -> None:
    red = decode(encode(plain("LAB", (136, 208, 195)), "TIFF"))  # L* 53, a* 80, b* 67

    assert np.abs(red.astype(int) - (255, 0, 0)).max() <= 12


def test_a_transparent_16_bit_value_is_white() -> None:
    image = plain("I;16", 300)
    image.putpixel((0, 0), 0x4000)

    rgb = decode(encode(image, "PNG", transparency=300))

    assert rgb[0, 0].tolist() == [0x40, 0x40, 0x40]
    assert rgb[2, 3].tolist() == list(WHITE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    data = encode(noise(), format, exif=exif(orientation), **({"lossless": True} if format == "WEBP" else {}))

    rgb = decode(data)

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(rgb, np.asarray(upright.convert("RGB")))
    assert (rgb.shape[1], rgb.shape[0]) == ((48, 32) if orientation < 5 else (32, 48))
    assert read_header(data) == Header(width=rgb.shape[1], height=rgb.shape[0], format=format)


def test_exif_behind_the_pixels_of_a_png_is_seen_by_both() -> None:
    data = encode(noise(), "PNG")
    end = png_chunk(b"IEND", b"")
    late = data.removesuffix(end) + png_chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")) + end

    assert read_header(late) == Header(width=32, height=48, format="PNG")
    assert decode(late).shape == (48, 32, 3)


def test_a_broken_exif_block_costs_nothing() -> None:
    data = encode(noise(), "PNG", exif=b"Exif\0\0nonsense")

    assert read_header(data) == Header(width=48, height=32, format="PNG")
    np.testing.assert_array_equal(decode(data), np.asarray(noise()))


def test_frames() -> None:
    red, blue = plain("RGB", (255, 0, 0)), Image.new("RGB", (5, 2), (0, 0, 255))
    data = encode(red, "TIFF", save_all=True, append_images=[blue])

    assert decode(data)[0, 0].tolist() == [255, 0, 0]
    assert decode(data, frame=1)[0, 0].tolist() == [0, 0, 255]
    assert read_header(data, frame=1) == Header(width=5, height=2, format="TIFF")
    for frame in (2, -1):
        with pytest.raises(ImageError, match=f"undecodable: no frame {frame}, this TIFF has 2"):
            decode(data, frame=frame)
    with pytest.raises(ImageError, match="undecodable: no frame 1, this PNG has 1"):
        decode(encode(red, "PNG"), frame=1)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "undecodable: not an image of a known format"),
        (b"P", "undecodable: not an image of a known format"),
        (b"<html>404</html>", "undecodable: not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "undecodable: not an image of a known format"),
        (encode(noise(), "JPEG")[:-500], "undecodable: truncated JPEG"),
        (encode(noise(), "PNG")[:-500], "undecodable: truncated PNG"),
        (encode(noise(), "GIF")[:-500], "undecodable: truncated GIF"),
        (encode(noise(), "BMP")[:-500], "undecodable: truncated BMP"),
        (encode(noise(), "WEBP")[:-500], "undecodable: broken or unsupported WEBP"),
        (encode(noise(), "PNG").replace(b"IDAT", b"IDAX"), "undecodable: broken or unsupported PNG"),
        (encode(plain("F", 0.5), "TIFF"), "undecodable: 32-bit pixels (mode F) without a known white"),
        (encode(plain("I", 70_000), "TIFF"), "undecodable: 32-bit pixels (mode I) without a known white"),
        (png_of_size(20_000, 20_000), "too large: 20000 x 20000 = 400,000,000 pixels, limit 89,478,485"),
        (png_of_size(MAX_PIXELS + 1, 1), "too large: 89478486 x 1 = 89,478,486 pixels, limit 89,478,485"),
        (png_of_size(0, 5), "undecodable: broken or unsupported PNG"),
    ],
)
def test_what_cannot_be_decoded_says_why(data: bytes, error: str) -> None:
    with pytest.raises(ImageError) as raised:
        decode(data)

    assert str(raised.value) == error


def test_a_frame_without_pixels_is_refused() -> None:
    data = encode(plain("RGB", BLACK), "TIFF", save_all=True, append_images=[Image.new("RGB", (7, 5))])
    width = data.index(struct.pack("<HHIH", 256, 4, 1, 7)) + 8

    with pytest.raises(ImageError, match="undecodable: 0 x 5 pixels"):
        decode(data[:width] + bytes(2) + data[width + 2 :], frame=1)


def test_a_bomb_is_refused_before_memory_grows() -> None:
    bomb = png_of_size(20_000, 20_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()

    for read in (read_header, decode):
        with pytest.raises(ImageError, match="too large"):
            read(bomb)

    assert time.perf_counter() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB; its pixels are 1.2 GB


@pytest.mark.parametrize("width_height", [(1, 1), (1, 5000), (5000, 1)])
def test_thin_images_decode(width_height: tuple[int, int]) -> None:
    data = encode(Image.new("RGB", width_height, (1, 2, 3)), "PNG")

    assert decode(data).shape == (width_height[1], width_height[0], 3)


def of_scans(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG in which every scan but the first says in a few bytes that nothing changes."""

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content

    tables = segment(0xDB, bytes([0] + [1] * 64))
    frame = segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    dc = segment(0xC4, bytes([0x00, 1, *[0] * 15, 0]))
    ac = segment(0xC4, bytes([0x10, 1, *[0] * 15, 0xE0]))  # its only code ends up to 32,767 blocks
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes((side // 8) ** 2 // 8)
    further = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\x7f\xff\x00"
    return b"\xff\xd8" + tables + frame + dc + ac + first + further * (scans - 1) + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused() -> None:
    assert decode(of_scans(MAX_SCANS)).shape == (64, 64, 3)

    with pytest.raises(ImageError, match="undecodable: a JPEG of more than 256 scans"):
        decode(of_scans(MAX_SCANS + 1))


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_behind_a_photograph_are_no_scans(progressive: bool) -> None:
    photograph = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)), "JPEG",
                        progressive=progressive)  # fmt: skip
    film = random.Random(0).randbytes(4_000_000) + b"\xff\xda" * 1000  # as phones append to what moves

    assert np.array_equal(decode(photograph + film), decode(photograph))


def test_a_lazy_pillow_image_that_breaks_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="undecodable: truncated JPEG"):
        to_rgb(Image.open(io.BytesIO(encode(noise(), "JPEG")[:-500])))


def test_mistakes_of_the_caller_are_not_hidden() -> None:
    with pytest.raises(TypeError):
        decode("a path")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:::PIL")
def test_mutated_files_decode_or_end_as_an_image_error() -> None:
    chance = random.Random(0)
    seeds = [encode(noise(), format, exif=exif(6)) for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")]
    seeds += [encode(noise(), format) for format in ("GIF", "BMP", "PPM", "JPEG2000")]
    seeds.append(encode(noise().convert("RGBA").quantize(16), "PNG", transparency=bytes(range(16))))
    for _ in range(1500):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 2, 20))):
            data[chance.randrange(min(len(data), chance.choice((300, 10_000))))] = chance.choice((0, 255, 1, 127))
        for read in (read_header, decode):
            with suppress(ImageError):
                read(bytes(data))


def test_warnings_of_pillow_stay_off_the_terminal() -> None:
    # Of a TIFF with two planar configurations Pillow warns, and reads it; of one with 200 samples per pixel it
    # logs an error.
    script = """
import io
from PIL import Image
from clipsieve.core.decode import decode
from clipsieve.errors import ImageError
file = io.BytesIO()
Image.new("RGB", (4, 3)).save(file, "TIFF")
data = file.getvalue()
planar, samples = (data.index(tag.to_bytes(2, "little") + bytes([3, 0, 1, 0, 0, 0])) for tag in (284, 277))
print(decode(data[: planar + 4] + bytes([2]) + data[planar + 5 :]).shape)
try:
    decode(data[: samples + 8] + bytes([200]) + data[samples + 9 :])
except ImageError as failure:
    print(failure)
"""
    done = subprocess.run([sys.executable, "-W", "default", "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["(3, 4, 3)", "undecodable: broken or unsupported TIFF"]
    assert done.stderr == ""


def test_many_threads_read_the_same_pixels() -> None:
    files = [encode(noise(), format) for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF")] * 20

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, files))

    assert all(np.array_equal(rgb, decode(data)) for rgb, data in zip(together, files, strict=True))


# The pixels of the odd photographs, each said another way than by the decoder.


def opened(name: str) -> Image.Image:
    return Image.open(ODD / name)


def over_white(name: str) -> Image.Image:
    picture = opened(name).convert("RGBA")
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def upright(name: str, turn: Image.Transpose) -> Image.Image:
    return opened(name).transpose(turn)


def lab_as_srgb(name: str) -> Image.Image:
    profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
    return ImageCms.profileToProfile(opened(name), *profiles, outputMode="RGB")


def high_byte(name: str, transparent: int | None = None) -> Image.Image:
    values = np.asarray(opened(name))
    gray = np.where(values == transparent, 255, values // 256)
    return Image.fromarray(gray.astype(np.uint8)).convert("RGB")


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.skipif(not ODD.is_dir(), reason="the photographs are not part of the repository")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("animated.gif", lambda name: next(iter(ImageSequence.Iterator(opened(name)))).convert("RGB")),
        ("bad_mpo_header.jpg", lambda name: opened(name)),
        ("cmyk.jpg", lambda name: opened(name).convert("RGB")),
        ("exif_orientation_3.jpg", lambda name: upright(name, Image.Transpose.ROTATE_180)),
        ("exif_orientation_6.jpg", lambda name: upright(name, Image.Transpose.ROTATE_270)),
        ("gray.jpg", lambda name: Image.merge("RGB", [opened(name)] * 3)),
        ("gray16.png", high_byte),
        ("gray16.png", lambda name: Image.fromarray(cv2.imread(str(ODD / name)))),
        ("gray16_trns.png", lambda name: high_byte(name, transparent=255)),
        ("hopper.webp", lambda name: opened(name)),
        ("jpeg_named.png", lambda name: Image.fromarray(cv2.imread(str(ODD / name))[..., ::-1])),
        ("lab.tif", lab_as_srgb),
        ("one_bit.png", lambda name: opened(name).convert("L").convert("RGB")),
        ("palette.png", lambda name: opened(name).convert("RGB")),
        ("qtables16.jpg", lambda name: Image.fromarray(cv2.imread(str(ODD / name))[..., ::-1])),
        ("rgba.png", over_white),
        ("rgba.webp", over_white),
        ("stereo.mpo", lambda name: opened(name)),
    ],
)
def test_odd_files_have_the_pixels_that_pillow_and_opencv_users_expect(
    name: str, expected: Callable[[str], Image.Image]
) -> None:
    data = (ODD / name).read_bytes()

    rgb = decode(data)

    np.testing.assert_array_equal(rgb, np.asarray(expected(name)))
    header = read_header(data)
    assert (header.height, header.width) == rgb.shape[:2]


@pytest.mark.skipif(not ODD.is_dir(), reason="the photographs are not part of the repository")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("corrupt.jpg", "undecodable: not an image of a known format"),
        ("truncated.jpg", "undecodable: truncated JPEG"),
        ("truncated.png", "undecodable: truncated PNG"),
    ],
)
def test_broken_odd_files(name: str, error: str) -> None:
    with pytest.raises(ImageError, match=error):
        decode((ODD / name).read_bytes())


@pytest.mark.skipif(not ODD.is_dir(), reason="the photographs are not part of the repository")
@pytest.mark.parametrize("name", ["exif_orientation_3.jpg", "exif_orientation_6.jpg", "lab.tif", "qtables16.jpg"])
def test_odd_files_of_one_photograph_look_alike(name: str) -> None:
    """All five files show the same face: upright and in the same colours, they differ by compression alone."""
    one, other = decode((ODD / "hopper.webp").read_bytes()), decode((ODD / name).read_bytes())

    assert np.abs(one.astype(int) - other).mean() < 12
