"""Keys of samples in a tar: safe as a file name, without a dot, and never the same twice in one file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import quote

MAX_KEY = 180
"""Characters of a key: with a number and an extension it stays under the 255 of common file systems."""


def encoded(sample_id: str) -> str:
    """The id percent-encoded, dots too; one too long is cut and ends in ``~`` and 16 hex digits of its SHA-256."""
    key = quote(sample_id, safe="").replace(".", "%2E")
    if len(key) <= MAX_KEY:
        return key
    digest = hashlib.sha256(sample_id.encode()).hexdigest()[:16]
    return f"{key[: MAX_KEY - len(digest) - 1]}~{digest}"


def unique(keys: Iterable[str]) -> Iterator[str]:
    """The keys in order; one that was there before gets ``~2``, ``~3`` and so on, so samples never merge."""
    used: set[str] = set()
    times: Counter[str] = Counter()
    for key in keys:
        free = key
        while free in used:
            times[key] += 1
            free = f"{key}~{times[key] + 1}"
        used.add(free)
        yield free
