"""Which file names are images."""

from __future__ import annotations

IMAGE_EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".mpo",
        ".avif",
        ".heic",
        ".heif",
        ".jp2",
        ".j2k",
        ".ppm",
        ".pgm",
        ".pbm",
        ".tga",
        ".ico",
    ]
)
"""Extensions of still images that Pillow reads or that people expect it to; others are not images."""


def is_image(path: str) -> bool:
    """Whether a file or tar member has an image's extension, in any case."""
    return path[path.rfind(".") :].lower() in IMAGE_EXTENSIONS
