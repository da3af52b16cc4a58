"""A contact sheet: small pictures of labelled images, by label, each with its label and how probable it is."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clipsieve.core.text import printable

if TYPE_CHECKING:
    from clipsieve.report.labels import Labelled

Picture: TypeAlias = Image.Image | None
"""A thumbnail, or None for an image that cannot be read any more."""

IMAGES = 60
"""Images on a sheet when nothing is said: as many as one looks through at once."""

SIDE = 160
"""Side of a tile in pixels."""

COLUMNS = 8
GAP, MARGIN = 18, 28
TITLE, HEADING, CAPTION, BAR = 30, 50, 44, 3
PAPER, INK, FADED, TILE, LINE, ACCENT = "#ffffff", "#1c1e21", "#6b7078", "#f3f4f6", "#e1e4e8", "#2f6fde"


@dataclass(frozen=True, kw_only=True)
class Block:
    """The images of one label on a sheet, the surest first: their ledger rows, how probable, and of how many."""

    label: str
    images: int
    rows: Sequence[int]
    probabilities: Sequence[float]

    @property
    def columns(self) -> int:
        """How many tiles wide it is."""
        return min(len(self.rows), COLUMNS)

    @property
    def lines(self) -> int:
        """How many tiles high it is."""
        return -(-len(self.rows) // COLUMNS)


def choose(groups: Sequence[Labelled], images: int = IMAGES) -> list[Block]:
    """Up to ``images`` of all labelled images: as many of each label as of any other that has so many, and of those
    of a label some evenly from the surest to the least sure."""
    sizes = [len(group.rows) for group in groups]
    left, shares = images, dict.fromkeys(range(len(groups)), 0)
    # From the smallest on, what one does not need is left for the larger.
    for after, place in enumerate(sorted(shares, key=lambda place: (sizes[place], -place))):
        shares[place] = min(sizes[place], left // (len(groups) - after))
        left -= shares[place]
    blocks = []
    for group, size, share in zip(groups, sizes, shares.values(), strict=True):
        places = np.linspace(0, size - 1, share).round().astype(np.int64)
        rows, probabilities = group.rows[places].tolist(), group.probabilities[places].tolist()
        blocks.append(Block(label=group.label, images=size, rows=rows, probabilities=probabilities))
    return [block for block in blocks if block.rows]


def draw(blocks: Sequence[Block], pictures: Mapping[int, Picture], names: Mapping[int, str], title: str) -> Image.Image:
    """The sheet; ``pictures`` and ``names`` are by ledger row. Equal input gives equal pixels.

    The font is the one that comes with Pillow, which knows the letters of English: accents are left out, and letters
    of other scripts appear as boxes.
    """
    bands = list(_bands(blocks))
    columns = max([4, *(sum(block.columns for block in band) for band in bands)])
    tile = SIDE + BAR + CAPTION
    heights = [HEADING + GAP + max(block.lines for block in band) * (tile + GAP) for band in bands]
    height = TITLE + sum(heights) - 2 * GAP
    sheet = Image.new("RGB", (2 * MARGIN + columns * (SIDE + GAP) - GAP, 2 * MARGIN + height), PAPER)
    pen = _Pen(sheet)
    pen.write((MARGIN, MARGIN), title, 14, FADED, sheet.width - 2 * MARGIN)
    top = MARGIN + TITLE
    for band, high in zip(bands, heights, strict=True):
        left = MARGIN
        for block in band:
            pen.block((left, top), block)
            for number, (row, probability) in enumerate(zip(block.rows, block.probabilities, strict=True)):
                line, column = divmod(number, COLUMNS)
                corner = left + column * (SIDE + GAP), top + HEADING + line * (tile + GAP)
                pen.tile(corner, pictures.get(row), block.label, probability, names.get(row, ""))
            left += block.columns * (SIDE + GAP)
        top += high
    return sheet


def _bands(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Blocks that fit beside each other, in order."""
    band: list[Block] = []
    for block in blocks:
        if band and sum(other.columns for other in band) + block.columns > COLUMNS:
            yield band
            band = []
        band.append(block)
    if band:
        yield band


class _Pen:
    """Draws on a sheet; places are the upper left corner, in pixels."""

    def __init__(self, sheet: Image.Image) -> None:
        self.sheet = sheet
        self.on = ImageDraw.Draw(sheet)
        self.fonts = {size: ImageFont.load_default(size) for size in (12, 14, 20)}

    def block(self, place: tuple[int, int], block: Block) -> None:
        """A label with the number of its images, over a line as wide as its tiles."""
        (left, top), width = place, block.columns * (SIDE + GAP) - GAP
        of = "" if len(block.rows) == block.images else f"{len(block.rows):,} of "
        count = f"{of}{block.images:,} image{'s' * (block.images > 1)}"
        self.write((left, top), block.label, 20, INK, width)
        self.write((left, top + 25), count, 12, FADED, width)
        self.on.line([(left, top + HEADING - 7), (left + width - 1, top + HEADING - 7)], LINE, 1)

    def tile(self, place: tuple[int, int], picture: Picture, label: str, probability: float, name: str) -> None:
        """A picture over a bar as long as it is probable, its label and its name."""
        left, top = place
        self.on.rectangle([left, top, left + SIDE - 1, top + SIDE - 1], TILE)
        if picture is None:
            self.write((left + 10, top + SIDE // 2 - 8), "cannot be read", 14, FADED, SIDE - 20)
        else:
            self.sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
        self.on.rectangle([left, top + SIDE, left + SIDE - 1, top + SIDE + BAR - 1], LINE)
        if (long := round(SIDE * probability)) > 0:
            self.on.rectangle([left, top + SIDE, left + long - 1, top + SIDE + BAR - 1], ACCENT)
        number, below = f"{probability:.3f}", top + SIDE + BAR + 4
        wide = int(self.fonts[14].getlength(number)) + 1
        self.write((left, below), label, 14, INK, SIDE - wide - 8)
        self.write((left + SIDE - wide, below), number, 14, INK, wide + 1)
        self.write((left, below + 19), name, 12, FADED, SIDE, ending=True)

    def write(
        self, place: tuple[int, int], text: str, size: int, colour: str, width: int, *, ending: bool = False
    ) -> None:
        """One line of text in at most ``width`` pixels; of a longer one the beginning or the ``ending`` stays."""
        bare = (char for char in unicodedata.normalize("NFKD", printable(text)) if not unicodedata.combining(char))
        font, text = self.fonts[size], "".join(bare)
        if font.getlength(text) > width:
            text = text[-SIDE:] if ending else text[: 4 * width]
            while text and font.getlength(f"…{text}") > width:
                text = text[1:] if ending else text[:-1]
            text = f"…{text}" if ending else f"{text.rstrip()}…"
        self.on.text(place, text, colour, font)
