"""What an index says of itself, kept beside its rows: the model that made its vectors, and how it is searched."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from clipsieve.errors import IndexStoreError

FORMAT = 1
"""Of the table; a newer one is refused."""


@dataclass(frozen=True, kw_only=True)
class Approximate:
    """An approximate index: the rows it was built over, and the share of the exact search's 10 best that it finds.

    Measured with ``queries`` stored vectors, each looking for others than itself.
    """

    rows: int
    recall: float
    queries: int


@dataclass(frozen=True, kw_only=True)
class About:
    """What an index says of itself: the model that made its vectors, and how it is searched."""

    model: str
    revision: str | None
    fingerprint: str
    dim: int
    approximate: Approximate | None = None

    def text(self) -> str:
        """As JSON, to be kept beside the rows."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def parse(cls, text: str, title: str) -> About:
        """Reads what ``text`` wrote. Raises ``IndexStoreError`` for anything else."""
        try:
            values = json.loads(text)
            newer = values.pop("format") > FORMAT
            found = values.pop("approximate")
            about = None if newer else cls(**values, approximate=Approximate(**found) if found else None)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise IndexStoreError(f"{title} is a table of another kind, not an index of Clipsieve") from None
        if about is None:
            raise IndexStoreError(f"{title} was made by a newer Clipsieve; update this one")
        return about
