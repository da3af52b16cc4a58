"""A long text is cut into pieces that fit, without losing a word."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.encoders import load
from clipsieve.encoders.transformers import cut


def fits_in(limit):
    """A context of so many characters, white space at the ends not counted."""
    return lambda text: len(text.strip()) <= limit


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("short", ["short"]),
        ("one two three four", ["one two ", "three four"]),
        ("  one two three", ["  one two ", "three"]),
        ("tiny extraordinarily big", ["tiny ", "extraordin", "arily big"]),
        ("", [""]),
        ("   ", ["   "]),
    ],
)
def test_cut(text, pieces):
    assert cut(text, fits_in(10)) == pieces


@given(st.text(), st.integers(1, 30))
@settings(deadline=None)
def test_cut_keeps_every_character(text, limit):
    fits = fits_in(limit)
    pieces = cut(text, fits)
    assert "".join(pieces) == text
    assert all(fits(piece) for piece in pieces)
    assert all(piece.strip() for piece in pieces) or len(pieces) == 1


@given(st.text(alphabet="ab \n\t", min_size=1), st.integers(1, 9))
@settings(deadline=None)
def test_cut_where_white_space_counts(text, limit):
    pieces = cut(text, lambda piece: len(piece) <= limit)
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", text)
    assert all(len(piece) <= limit for piece in pieces) or not text.strip()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize(
    "text",
    [
        "a red dog on the street, " * 60,
        "😀🎉" * 200,
        "x" * 1000,
        "写真には赤い犬と青い車が写っている。" * 30,
        "word " + "\n" * 500 + " word" * 100,
        "a photo of a man and a woman in front of a house with two dogs",
    ],
)
def test_windows_of_a_model(kind, text, folders):
    encoder = load(str(folders[kind]))
    context = {"clip": 77, "siglip": 64}[kind]
    windows = encoder.windows(text)
    assert "".join("".join(windows).split()) == "".join(text.split())
    lengths = [len(encoder._tokenizer(window)["input_ids"]) for window in windows]
    assert max(lengths) <= context
    if len(windows) > 1:  # Well filled: no more windows than needed, give or take a word.
        assert min(lengths[:-1]) > 0.8 * context
