"""Results that are held: made once, within bounds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from clipsieve.core.recent import Recent


def test_many_who_ask_at_once_get_the_one_result() -> None:
    held: Recent[int] = Recent(4)
    made: list[int] = []
    go_on = Event()

    def make() -> int:
        go_on.wait(5)
        made.append(1)
        return 7

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(held.get, "key", make) for _ in range(4)]
        go_on.set()
        assert [one.result(5) for one in asked] == [7] * 4
    assert len(made) == 1


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    held: Recent[str] = Recent(6, len)
    for key in "abc":
        held.get(key, lambda: "xx")
    held.get("a", lambda: "made again")
    held.get("d", lambda: "xx")
    assert [held.get(key, lambda: "new") for key in "acd"] == ["xx", "xx", "xx"]
    assert held.get("b", lambda: "new") == "new"


def test_a_result_that_is_too_large_is_still_a_result() -> None:
    held: Recent[str] = Recent(3, len)
    assert held.get("a", lambda: "a long one") == "a long one"
    assert held.get("a", lambda: "another") == "a long one"


def test_a_failure_reaches_who_asks_and_is_not_held() -> None:
    held: Recent[int] = Recent(3)

    def fail() -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        held.get("a", fail)
    assert held.get("a", lambda: 1) == 1
