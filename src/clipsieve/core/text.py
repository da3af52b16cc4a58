"""Text from elsewhere, made fit to be shown."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(://[^/@:]*):[^/]*@")


def without_password(url: str) -> str:
    """``url`` with ``***`` in place of the password in it; a path stays as it is."""
    return _PASSWORD.sub(r"\1:***@", url)


def printable(text: str) -> str:
    """``text`` in one line, with what could steer a terminal spelt out: a file may be called anything."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
