"""What tests do on the page as a person does it, and how a page comes to be served."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clipsieve.web.app import Answers
from clipsieve.web.security import Access

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[..., "Page"]


@contextmanager
def serving(answers: Answers) -> Iterator[str]:
    """Where they are served, by the server itself, on a free port."""
    import uvicorn

    from clipsieve.web.server import listen

    listening = listen("127.0.0.1", 0)
    access = Access.at("127.0.0.1", listening.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(answers.app(access), log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{access.port}/"
    server.should_exit = True
    thread.join(5)


def kept(page: Page) -> int:
    return int(page.inner_text("#kept").replace(",", ""))


def settled(page: Page, known: Callable[[], bool]) -> None:
    """Waits until what a person waits for is to be seen."""
    for _ in range(200):
        if known():
            return
        page.wait_for_timeout(25)
    raise AssertionError(page.inner_text("body")[:2000])


def drag(page: Page, name: str, to: float) -> None:
    """Drags the threshold of a score to a place between 0 and 1 of its histogram."""
    handle, plot = page.get_by_role("slider", name=name), page.locator(f'.card[aria-label^="{name}"] .plot')
    handle.scroll_into_view_if_needed()
    at, box = handle.bounding_box(), plot.bounding_box()
    assert at
    assert box
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    page.mouse.down()
    for step in range(1, 6):
        start = at["x"] + at["width"] / 2
        page.mouse.move(start + (box["x"] + to * box["width"] - start) * step / 5, box["y"] + 20)
    page.mouse.up()
    last = None
    while last != (last := page.inner_text("#summary")):
        page.wait_for_timeout(250)
