from __future__ import annotations

import numpy as np
import pytest

from clipsieve.core.batch import Batch
from clipsieve.core.contracts import Pixels
from clipsieve.scorers import ImageTextRatio, Words

DOT: Pixels = np.zeros((1, 1, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "texts", "words", "ratio"),
    [
        (1, "a red ball", 3, 1 / 3),
        (2, ["a red ball", "on green grass"], 6, 2 / 6),
        (3, None, 0, 3),
        (0, "only words", 2, 0),
        (0, None, 0, 0),
        (1, "  two\n\twords  ", 2, 1 / 2),
        (1, "non-breaking\u00a0and\u3000ideographic space", 4, 1 / 4),
        (1, "红色的球", 1, 1),
        (1, "👍🏽 !", 2, 1 / 2),
        (1, ["", "  ", "one"], 1, 1),
    ],
)
def test_images_over_words(images: int, texts: str | list[str] | None, words: int, ratio: float) -> None:
    assert Words()([[DOT] * images], [texts])["words"].tolist() == [words]
    assert ImageTextRatio()([[DOT] * images], [texts])["image_text_ratio"].tolist() == [ratio]


def test_only_kept_images_count_when_asked() -> None:
    batch = Batch.from_lists([[DOT, DOT, DOT], [DOT]], ["four words are here", "two words"])
    batch.alive = np.array([True, False, False, True])

    assert ImageTextRatio(count="source").score(batch)["image_text_ratio"].to_pylist() == [3 / 4, 1 / 2]
    assert ImageTextRatio(count="kept").score(batch)["image_text_ratio"].to_pylist() == [1 / 4, 1 / 2]


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(ValueError, match="count is 'source' or 'kept', not 'all'"):
        ImageTextRatio(count="all")  # type: ignore[arg-type]
