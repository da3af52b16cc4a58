"""What owners say about the use of their images, in the header ``X-Robots-Tag``."""

from __future__ import annotations

import re
from collections.abc import Iterable

DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")
"""What takes an image out, as in img2dataset, which large data sets of images by URL are made with."""

_OTHERS = ("all", "none", "index", "follow", "nofollow", "noarchive", "nocache", "nosnippet", "notranslate")
_WITH_VALUES = ("unavailable_after", "unavailable-after", "max-snippet", "max-image-preview", "max-video-preview")
"""Directives that a colon follows, as it follows the name of a program."""

_KNOWN = frozenset((*DIRECTIVES, *_OTHERS, *_WITH_VALUES))

_EVERYONE = ("", "*", "all", "any", "robots")

_NAMED = re.compile(r"\s*(\*|[a-z][\w.-]*)\s*:")
"""What a colon makes the name of a program, where a directive follows; any other one is that of a value or a time."""

_WORD = re.compile(r"[\w-]+")


def opted_out(headers: Iterable[str], user_agent: str) -> str | None:
    """The directive by which an image is not to be used; None where there is none.

    Directives behind the name of a program (``googlebot: noindex``) are for that one: the first word of
    ``user_agent`` is ours. What can be read in two ways takes the image out.
    """
    own = user_agent.split("/")[0].split()[0].lower()
    for header in headers:
        about = ""
        for said in re.split("[,;]", re.sub("[\"'()\\[\\]]", " ", header.lower())):
            words: list[str] = _WORD.findall(said)
            if (found := _NAMED.match(said)) is not None and found[1] not in _WITH_VALUES:
                if found[1] in DIRECTIVES:
                    return str(found[1])
                value = _WORD.findall(said, found.end())
                if value and value[0] in _KNOWN:
                    about, words = found[1], value
            if about in (*_EVERYONE, own):
                directive = next((word for word in words if word in DIRECTIVES), None)
                if directive is not None:
                    return directive
    return None
