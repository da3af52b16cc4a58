"""What owners say about the use of their images, in the header ``X-Robots-Tag``."""

from __future__ import annotations

import re
from collections.abc import Iterable

DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")
"""What takes an image out, as in img2dataset, which large data sets of images by URL are made with."""

_WITH_VALUES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
"""Directives that a colon follows, as it follows the name of a program."""

_NAMED = re.compile(r"\s*(\*|[a-z][\w.-]*)\s*:")
"""What a colon makes the name of a program; any other one is that of a time of day."""


def opted_out(headers: Iterable[str], user_agent: str) -> str | None:
    """The directive by which an image is not to be used; None where there is none.

    Directives behind the name of a program (``googlebot: noindex``) are for that one: the first word of
    ``user_agent`` is ours.
    """
    own = user_agent.split("/")[0].split()[0].lower()
    for header in headers:
        about = ""
        for said in re.split("[,;]", header.lower()):
            found = _NAMED.match(said)
            if found is not None and found[1] not in _WITH_VALUES:
                about, said = found[1], said[found.end() :]
            if about in ("", "*", own):
                directive = next((word for word in said.split() if word in DIRECTIVES), None)
                if directive is not None:
                    return directive
    return None
