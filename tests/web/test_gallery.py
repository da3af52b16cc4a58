"""The gallery in a real browser: all of its pages on any screen, and the reasons that it is narrowed by."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import clipsieve
from tests.web.pages import Open, serving, settled


@pytest.fixture(scope="module")
def there(pairs: clipsieve.Run) -> Iterator[str]:
    """Where the run of pairs is served."""
    from clipsieve.web.server import answers_of

    with serving(answers_of(pairs)) as address:
        yield address


def test_a_large_screen_is_filled_without_scrolling_and_again_after_another_order(open_page: Open, there: str) -> None:
    page = open_page(width=2560, height=1440, at=there)
    settled(page, lambda: page.locator(".tile").count() == 120)
    page.select_option("#sort", "mixed")
    settled(page, lambda: page.locator(".tile").first.get_attribute("data-row") != "0")
    settled(page, lambda: page.locator(".tile").count() == 120)


def test_scrolling_loads_every_page_once(open_page: Open, there: str) -> None:
    page = open_page(height=600, at=there)
    settled(page, lambda: page.locator(".tile").count() == 60)
    for _ in range(40):
        page.mouse.move(900, 400)
        page.mouse.wheel(0, 1500)
        page.wait_for_timeout(50)
        if page.locator(".tile").count() == 150:
            break
    rows = [int(tile.get_attribute("data-row") or -1) for tile in page.locator(".tile").all()]
    assert rows == list(range(150))


def test_what_goes_with_a_failed_image_is_shown_by_that_reason(open_page: Open, there: str) -> None:
    page = open_page("#show=dropped", at=there)
    page.select_option("#by", "beside")
    settled(page, lambda: page.locator(".tile").count() == 1)
    assert "by=beside" in page.url
    assert page.locator(".tile").get_attribute("data-row") == "6"
    page.reload()
    settled(page, lambda: page.locator(".tile").count() == 1 and page.input_value("#by") == "beside")
    page.click("#tab-all")
    assert page.locator("#by").is_hidden()


def test_pairs_that_were_not_compared_are_told_as_such(open_page: Open, there: str) -> None:
    page = open_page('#keep=["any(pair_similarity) >= -1"]&show=unknown', at=there)
    note = page.locator('.card[aria-label^="any(pair"] .note').inner_text()
    assert "not computed" in note
    assert "cannot be scored" not in note
    for tile in page.locator(".tile .why").all():
        assert tile.text_content() == "needs pair_similarity, which the run did not compute"
