"""Who wants to hear how a run goes; the command line draws bars, Python hears nothing unless it asks."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Who wants to hear how a run goes."""

    def say(self, line: str) -> None:
        """A fact worth a line: what was inferred, a warning, what is resumed."""
        ...

    def start(self, shards: int, done: int) -> None:
        """Work begins on ``shards`` shards, of which ``done`` were committed before."""
        ...

    def advance(self, images: int, shard_done: bool) -> None:
        """``images`` more have been scored, or a shard has been committed."""
        ...

    def compare(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps of the search for near duplicates are done."""
        ...


class Silent:
    """A ``Progress`` that says nothing."""

    def say(self, line: str) -> None:
        """Drops the line."""

    def start(self, shards: int, done: int) -> None:
        """Says nothing."""

    def advance(self, images: int, shard_done: bool) -> None:
        """Says nothing."""

    def compare(self, done: int, total: int) -> None:
        """Says nothing."""
