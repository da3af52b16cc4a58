"""What owners say about the use of their images, in the header ``X-Robots-Tag``."""

from __future__ import annotations

from collections.abc import Iterable

DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")
"""What takes an image out, as in img2dataset, which large data sets of images by URL are made with."""

_WITH_VALUES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
"""Directives that a colon follows, as it follows the name of a program."""


def opted_out(headers: Iterable[str], user_agent: str) -> str | None:
    """The directive by which an image is not to be used; None where there is none.

    Directives behind the name of a program (``googlebot: noindex``) are for that one: the first word of
    ``user_agent`` is ours.
    """
    own = user_agent.split("/")[0].split()[0].lower()
    for header in headers:
        about = ""
        for said in header.split(","):
            name, colon, rest = said.partition(":")
            directive = said.strip().lower()
            if colon and name.strip().lower() not in _WITH_VALUES:
                about, directive = name.strip().lower(), rest.strip().lower()
            if about in ("", "*", own) and directive in DIRECTIVES:
                return directive
    return None
