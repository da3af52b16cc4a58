"""Images as tiles of a page: thumbnails, caption, value, reason and scores of some ledger rows."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from markupsafe import Markup

from clipsieve.core.ledger import BASE_SCHEMA
from clipsieve.core.text import without_password
from clipsieve.report.examples import PICTURES
from clipsieve.report.strips import Examples, Tile
from clipsieve.report.values import Scores
from clipsieve.report.words import name_of, shown

CAPTION, REASON, NAME = 280, 240, 200
"""Characters of each that are printed: a caption can be a book."""


@dataclass(frozen=True, kw_only=True)
class Small:
    """An image within the page: as JPEG, with its caption; None and the ``error`` when it cannot be read any more."""

    jpeg: bytes | None
    caption: str | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class View:
    """What the template prints of a tile."""

    sources: list[Markup | None]
    error: str
    value: str
    verdict: str
    reason: str
    caption: str
    name: str
    reference: str
    scores: list[tuple[str, str]]
    more: int


class Tiles:
    """The tiles of a page; the ledger's rows of all of them are taken out once."""

    def __init__(self, scores: Scores, examples: Examples, pictures: Mapping[int, Small]) -> None:
        rows = sorted({row for tile in examples.tiles() for row in (tile.row, *tile.images)})
        some = scores.ledger.take(pa.array(rows, pa.int64()))
        self._rows = dict(zip(rows, some.to_pylist(), strict=True))
        self._pictures = pictures
        self._places = PICTURES

    def view(self, tile: Tile) -> View:
        """What is printed of ``tile``."""
        row = self._rows[tile.row]
        seen = [self._pictures.get(image) for image in tile.images]
        reference = without_password(name_of(row))
        verdict = row["sample_verdict"] if tile.sample else row["verdict"]
        errors = [picture.error for picture in seen if picture is not None and picture.error]
        return View(
            sources=[self._source(one) for one in seen],
            error=cut(errors[0] if errors else row["error"] or "", REASON),
            value="" if tile.value is None else shown(tile.value),
            verdict=verdict,
            reason=cut(row["reason"] or "", REASON) if verdict == row["verdict"] else "",
            caption=cut(next((one.caption for one in seen if one is not None and one.caption), ""), CAPTION),
            name=cut(reference.rpartition("/")[2] or reference, NAME, ending=True),
            reference=cut(reference, NAME, ending=True),
            scores=[(name, cut(shown(value), NAME)) for name, value in row.items() if _is_score(name, value)],
            more=tile.more,
        )

    def _source(self, picture: Small | None) -> Markup | None:
        """A picture within the page, while there is a place for it."""
        if picture is None or picture.jpeg is None or not self._places:
            return None
        self._places -= 1
        return Markup(f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}")


def cut(text: str, length: int = REASON, *, ending: bool = False) -> str:
    """The beginning of ``text`` in one line, or its ``ending``; it says where something is left out."""
    line = " ".join(text[: 8 * length].split()) if not ending else text
    if len(line) <= length:
        return line
    return f"…{line[-length:]}" if ending else f"{line[:length].rstrip()}…"


def _is_score(name: str, value: Any) -> bool:
    return name not in BASE_SCHEMA.names and value is not None and value != []
