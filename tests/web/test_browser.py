"""The page in a real browser, headless: what a person does with it, and what hostile data must not."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import clipsieve
from tests.web.conftest import HOSTILE
from tests.web.pages import Open, drag, kept, serving, settled

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def test_a_dragged_threshold_changes_counts_gallery_and_address_and_back_undoes_it(
    open_page: Open, run: clipsieve.Run
) -> None:
    page = open_page()
    before = kept(page)
    assert before == run.counts.images.kept
    assert page.locator("#tiles .tile").count() == 42
    assert page.locator(".card .handle").count() == 3
    page.click("#tab-kept")
    settled(page, lambda: page.locator("#tiles .tile").count() == before)
    drag(page, "width", 0.6)
    settled(page, lambda: kept(page) < before)
    settled(page, lambda: page.locator("#tiles .tile").count() == kept(page))
    lost = page.locator("#tab-changed b").inner_text()
    assert page.inner_text("#against") == f"−{lost} out against the run"
    assert "width" in page.url
    settled(page, lambda: page.locator('.card[aria-label^="width"] .out').inner_text() != "−2")
    changed = kept(page)
    page.go_back()
    settled(page, lambda: kept(page) == before)
    page.go_forward()
    settled(page, lambda: kept(page) == changed)
    page.click("#reset")
    settled(page, lambda: kept(page) == before)
    page.go_back()
    settled(page, lambda: kept(page) == changed)


def test_counts_follow_while_a_threshold_is_dragged(open_page: Open) -> None:
    page = open_page()
    page.evaluate(
        """() => {
          const [asks, heard] = [window.fetch, (window.heard = new Set())];
          window.fetch = (...asked) => new Promise((done) => setTimeout(done, 60)).then(() => asks(...asked));
          new MutationObserver(() => heard.add(kept.textContent)).observe(kept, {childList: true});
        }"""
    )
    handle = page.get_by_role("slider", name="width")
    at = handle.bounding_box()
    assert at
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + 20)
    page.mouse.down()
    for step in range(60):
        page.mouse.move(at["x"] + at["width"] / 2 + 3 * step, at["y"] + 20)
        page.wait_for_timeout(12)
    assert page.evaluate("window.heard.size") >= 3
    page.mouse.up()


@pytest.mark.parametrize(
    "hash", ["show=zzz", "show=dropped&by=x", "show=dropped&by=77", "sort=up%20zzz", "sort=near%20x", "like=x",
             "like=NaN", "like=-5", "in=nowhere", "keep=[null]", 'keep=[{"rule":"blur >= 1","x":1}]', "keep=[[1]]"],
)  # fmt: skip
def test_what_makes_no_sense_in_an_address_is_left_out(open_page: Open, hash: str) -> None:
    page = open_page("#" + hash)
    settled(page, lambda: page.locator("#tiles .tile").count() > 0)
    assert page.inner_text("#wrong") == page.inner_text("#status") == ""


@pytest.mark.parametrize("keep", ['["blurr >= 3"]', "[5]", '["blur', '{"a": 1}'])
def test_an_address_whose_rules_cannot_be_used_begins_with_the_runs(
    open_page: Open, run: clipsieve.Run, keep: str
) -> None:
    page = open_page(f"#keep={keep}")
    settled(page, lambda: kept(page) == run.counts.images.kept)
    if keep == '["blurr >= 3"]':
        assert "did you mean 'blur'" in page.inner_text("#wrong")


def test_a_threshold_moves_by_keys_and_by_its_number(open_page: Open) -> None:
    page = open_page()
    before = kept(page)
    slider = page.get_by_role("slider", name="width")
    slider.focus()
    page.keyboard.press("End")
    settled(page, lambda: kept(page) < before)
    assert float(slider.get_attribute("aria-valuenow") or 0) >= 360
    page.get_by_role("spinbutton", name="width").fill("60")
    page.keyboard.press("Enter")
    settled(page, lambda: kept(page) == before)
    page.get_by_role("slider", name="width").focus()
    page.keyboard.press("ArrowRight")
    settled(page, lambda: page.get_by_role("slider", name="width").get_attribute("aria-valuenow") != "60")


def test_rules_come_go_and_say_what_is_wrong_with_them(open_page: Open) -> None:
    page = open_page()
    before = kept(page)
    page.fill("#rule", "blurr >= 3")
    page.click("#add button")
    settled(page, lambda: "did you mean 'blur'" in page.inner_text("aside"))
    assert kept(page) == before
    page.fill("#rule", "80 <= height <= 85")
    page.click("#add button")
    settled(page, lambda: page.locator('[aria-label^="80 <= height"] .handle').count() == 2)
    settled(page, lambda: kept(page) < before)
    page.get_by_label("Remove 80 <= height <= 85").click()
    settled(page, lambda: kept(page) == before)
    page.get_by_label("Keep height at least").click()
    settled(page, lambda: page.locator('.card[aria-label^="height >="]').count() == 1)


def test_orders_reasons_and_groups(open_page: Open) -> None:
    page = open_page()
    page.select_option("#sort", "down width")
    settled(page, lambda: page.locator(".tile .chip").first.inner_text() == "360")
    page.select_option("#sort", "near 0")
    settled(page, lambda: page.locator(".tile .chip").first.inner_text() == "56")
    page.click("#tab-dropped")
    page.select_option("#by", "1")
    settled(page, lambda: page.locator(".tile").count() == 5)
    assert "blur" in (page.locator(".tile .why").first.text_content() or "")
    page.click("#tab-groups")
    settled(page, lambda: page.locator(".group .tile").count() == 2)
    assert page.locator(".group .badge").all_text_contents() == ["kept", "near duplicate"]


def test_search_by_text_and_by_clicking_an_image(open_page: Open) -> None:
    page = open_page()
    page.fill("#query", "something red")
    page.press("#query", "Enter")
    settled(page, lambda: "nearest to “something red”" in page.inner_text("#status"))
    page.click("#tab-all")
    page.wait_for_selector('.tile[data-row="8"]')
    page.locator('.tile[data-row="8"]').click()
    page.click("#similar")
    settled(page, lambda: "nearest to the chosen image" in page.inner_text("#status"))
    assert {tile.get_attribute("data-row") for tile in page.locator(".tile").all()[:2]} == {"8", "40"}


def test_the_recipe_is_copied_and_downloaded(open_page: Open, browser: Browser, tmp_path: Path) -> None:
    page = open_page("#keep=" + '["blur >= 7"]')
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#recipe")
    settled(page, lambda: "blur >= 7" in page.input_value("#yaml"))
    page.click("#copy")
    settled(page, lambda: page.inner_text("#copy") == "Copied")
    copied = str(page.evaluate("navigator.clipboard.readText()"))
    assert yaml.safe_load(copied)["keep"] == ["blur >= 7"]
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").read_text() == copied


def test_apply_writes_a_run_beside_this_one(open_page: Open, made: Path) -> None:
    page = open_page("#keep=" + '["width >= 200", "blur >= 100", "clip_score >= -1"]')
    expected = kept(page)
    page.click("#apply")
    settled(page, lambda: page.input_value("#folder") == "run-apply")
    page.fill("#folder", "../elsewhere")
    page.click("#go")
    settled(page, lambda: "it is a folder beside the run" in page.inner_text("#refused"))
    page.fill("#folder", "chosen")
    page.click("#go")
    settled(page, lambda: "Done in" in page.inner_text("#how"))
    applied = clipsieve.Run.open(made / "chosen")
    assert applied.counts.images.kept == expected
    assert applied.recipe.keep[0].rule == "width >= 200"
    assert list((made / "chosen" / "output").glob("*.jsonl"))


def test_apply_states_the_rules_that_it_writes_and_not_those_before(open_page: Open) -> None:
    page = open_page()
    before = kept(page)
    page.evaluate("() => { const asks = fetch; window.fetch = (...asked) => asks(...asked).then(late); }")
    page.evaluate("() => { window.late = (told) => new Promise((done) => setTimeout(() => done(told), 400)); }")
    page.get_by_role("spinbutton", name="width").fill("200")
    page.keyboard.press("Tab")
    page.click("#apply")
    assert page.inner_text("#what") == "Counting …"
    assert page.is_disabled("#go")
    settled(page, lambda: kept(page) < before and not page.is_disabled("#go"))
    of_duplicates = int(page.locator("#tab-duplicate b").inner_text())
    assert page.inner_text("#what").startswith(f"{kept(page) + of_duplicates} images (")


def test_a_second_tab_hears_when_the_first_has_done(open_page: Open, made: Path) -> None:
    from clipsieve.web.server import answers_of

    refused = Event()

    def slowly(*asked: Any, **options: Any) -> clipsieve.Run:
        """Applies once the other tab has been refused."""
        assert refused.wait(30)
        return clipsieve.apply_run(*asked, **options)

    def opens(page: Page) -> None:
        page.click("#apply")
        settled(page, lambda: page.input_value("#folder") != "")
        page.fill("#folder", "twice")

    def hears(page: Page) -> None:
        settled(page, lambda: "Done in" in page.inner_text("#how") and not page.is_visible("#refused"))

    with serving(answers_of(clipsieve.Run.open(made / "run"), work=slowly)) as there:
        one = open_page(at=there)
        other = open_page(at=there, context=one.context)
        opens(one)
        opens(other)
        one.click("#go")
        settled(one, lambda: one.is_visible("#how"))
        other.click("#go")
        settled(other, lambda: other.is_visible("#refused"))
        refused.set()
        hears(one)
        hears(other)
        assert one.input_value("#folder") == other.input_value("#folder") != "twice"


def test_labels_are_chosen_by_keys_and_the_last_that_goes_takes_its_rule_along(
    open_page: Open, labelled: clipsieve.Run
) -> None:
    from clipsieve.web.server import answers_of

    focus = "document.activeElement.textContent"
    with serving(answers_of(labelled)) as there:
        page = open_page(at=there)
        # No image has a caption: its name stands below it.
        settled(page, lambda: page.locator("#tiles .caption").first.inner_text().endswith("00.png"))
        page.get_by_role("button", name="red 6").focus()
        page.keyboard.press("Enter")
        settled(page, lambda: kept(page) == 6)
        settled(page, lambda: str(page.evaluate(focus)).startswith("red"))
        page.keyboard.press("Enter")
        settled(page, lambda: kept(page) == 12)
        assert page.locator("#rules .card").count() == 1
        page.get_by_label("Remove blur >= 1").focus()
        page.keyboard.press("Enter")
        settled(page, lambda: page.locator("#rules .card").count() == 0)
        assert page.evaluate(focus) == "Add"


def test_hostile_captions_are_only_text(open_page: Open) -> None:
    page = open_page()
    settled(page, lambda: HOSTILE[0] in page.inner_text("#tiles"))
    page.locator('.tile[data-row="1"]').click()
    settled(page, lambda: page.inner_text("#caption") == HOSTILE[1])
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    settled(page, lambda: "bold & red.png" not in page.inner_text("#place") and "&amp;" in page.inner_text("#place"))
    assert page.title() == "view0/run - Clipsieve" or page.title().endswith("/run - Clipsieve")
    assert page.locator("#tiles script, #tiles b, #caption *, #place *").count() == 0


def test_an_image_that_is_gone_leaves_a_placeholder(open_page: Open) -> None:
    page = open_page()
    settled(page, lambda: page.locator('.tile[data-row="6"] .unseen').count() == 1)
    settled(page, lambda: "something blue, the 6th" in page.locator('.tile[data-row="6"]').inner_text())
    page.locator('.tile[data-row="6"]').click()
    page.wait_for_selector("#unseen:visible")
    assert page.inner_text("#caption") == "something blue, the 6th"


def test_two_tabs_do_not_disturb_each_other(open_page: Open) -> None:
    one = open_page()
    other = open_page(context=one.context)
    before = kept(one)
    drag(one, "width", 0.7)
    settled(one, lambda: kept(one) < before)
    other.click("#tab-dropped")
    settled(other, lambda: "show=dropped" in other.url)
    assert kept(other) == before
    changed = kept(one)
    drag(other, "width", 0.3)
    settled(other, lambda: changed < kept(other) < before)
    assert kept(one) == changed
    one.reload()
    settled(one, lambda: one.locator(".tile").count() > 0 and kept(one) == changed)


def test_a_phone_shows_all_within_its_width_and_drags_by_touch(open_page: Open) -> None:
    page = open_page(width=390, height=844, has_touch=True, is_mobile=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    before = kept(page)
    handle, box = page.get_by_role("slider", name="width"), page.locator(".plot").first.bounding_box()
    at = handle.bounding_box()
    assert at
    assert box
    session = page.context.new_cdp_session(page)

    def touch(kind: str, x: float) -> None:
        points = [] if kind == "touchEnd" else [{"x": x, "y": at["y"] + at["height"] / 2}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", at["x"] + at["width"] / 2)
    for step in range(1, 5):
        touch("touchMove", at["x"] + at["width"] / 2 + step * box["width"] / 8)
        time.sleep(0.03)
    touch("touchEnd", 0)
    settled(page, lambda: kept(page) < before)
    page.locator(".tile").first.click()
    page.wait_for_selector("#large:visible")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
