"""Text from elsewhere, made fit to be shown."""

from __future__ import annotations

import re
import unicodedata

_PASSWORD = re.compile(r"(://[^/:]*):[^/]*@")
_TOKEN = re.compile(r"\b((?:https?|s3a?|gs|gcs)://)[^/?#:\s]+@", re.IGNORECASE)
"""Elsewhere a name alone is no secret: ``abfs://container@account``, ``sftp://user@host``."""


def without_password(url: str) -> str:
    """``url`` with ``***`` in place of the password or token in it; a path stays as it is."""
    return _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", url))


JOINERS = "\u200c\u200d"
"""Within words of Persian and Hindi, and between the people of one emoji: without them these read otherwise."""


def printable(text: str) -> str:
    """``text`` in one line, with what could steer a terminal, turn the order of letters or hide something spelt out:
    a file may be called anything. Spaces of every width stay."""
    return "".join(
        char if char.isprintable() or char in JOINERS or unicodedata.category(char) == "Zs" else repr(char)[1:-1]
        for char in text
    )
