"""Writes paragraphs of ordinary prose that describe no scene: the filler between the images of a document.

No word of it is a colour, a shape or a background of `clipsieve.demo.scenes`.
"""

from __future__ import annotations

import random
from string import Formatter

_SENTENCES = (
    "The {person} from the {place} had {past} the {object} {when}.",
    "Nobody in the {place} remembered who first {past} the {object}.",
    "{when}, the {person} and the {person} walked back to the {place} without a word.",
    "It is said that every {person} keeps a {quality} {object} near the {place}.",
    "A {quality} wind came over the {place}, and the {person} closed the {object}.",
    "We asked the {person} about the {object}, but the answer was {quality}.",
    "By then the {place} was {quality}, and there was little left to do.",
    "The price of the {object} rose {when}, which surprised the {person}.",
    "They {past} the {object} {when} and left it at the {place}.",
    "Some say the {place} will never be {quality} again.",
    "The {person} read the letter twice, {past} the {object}, and went home.",
    "In the {place} the days are long, and the {person} is seldom in a hurry.",
    "What the {person} wanted most was a {quality} {object} and some rest.",
    "{when}, the {object} stood where it had always stood, next to the {place}.",
    "Few visitors notice the {object}, although the {person} is proud of it.",
    "The road to the {place} is {quality}, so take the {object} with you.",
)
_WORDS = {
    "person": [
        "baker",
        "teacher",
        "sailor",
        "doctor",
        "farmer",
        "neighbour",
        "clerk",
        "painter",
        "nurse",
        "miller",
        "gardener",
        "captain",
    ],
    "place": [
        "harbour",
        "village",
        "market",
        "library",
        "valley",
        "station",
        "orchard",
        "bridge",
        "school",
        "island",
        "kitchen",
        "forest",
    ],
    "object": [
        "window",
        "basket",
        "letter",
        "clock",
        "ladder",
        "engine",
        "boat",
        "lantern",
        "table",
        "bell",
        "kettle",
        "piano",
    ],
    "past": [
        "repaired",
        "forgotten",
        "sold",
        "carried",
        "cleaned",
        "borrowed",
        "painted",
        "counted",
        "hidden",
        "measured",
        "moved",
        "lost",
    ],
    "quality": [
        "quiet",
        "heavy",
        "cold",
        "simple",
        "old",
        "gentle",
        "narrow",
        "useful",
        "strange",
        "warm",
        "empty",
        "honest",
    ],
    "when": (
        *("before the winter", "after the harvest", "last spring", "on a Monday", "in the evening", "years ago"),
        *("during the storm", "at the end of May", "once a month", "early that morning"),
    ),
}


def paragraph(rng: random.Random, *, words: int) -> str:
    """Writes whole sentences until there are at least `words` words (separated by white space)."""
    sentences: list[str] = []
    while sum(len(sentence.split()) for sentence in sentences) < words:
        sentences.append(_sentence(rng))
    return " ".join(sentences)


def _sentence(rng: random.Random) -> str:
    pieces = []
    for literal, slot, _, _ in Formatter().parse(rng.choice(_SENTENCES)):
        pieces.append(literal)
        if slot:
            pieces.append(rng.choice(_WORDS[slot]))
    sentence = "".join(pieces)
    return sentence[0].upper() + sentence[1:]
