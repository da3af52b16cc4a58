"""Text from elsewhere, made fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` in one line, with what could steer a terminal spelt out: a file may be called anything."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
