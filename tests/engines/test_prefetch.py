"""Images in stores are asked for ahead, each once, and no further than there is room for what has come."""

from __future__ import annotations

import threading
import time
from collections import Counter

import fsspec
import pytest

from clipsieve.core.batch import Batch
from clipsieve.core.fetch import ImageSource
from clipsieve.engines import prefetch
from clipsieve.engines.prefetch import Prefetch

SIZE = 1000


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image was read."""
    counted: Counter[str] = Counter()
    lock, read = threading.Lock(), ImageSource.read

    def counting(self: ImageSource) -> bytes:
        with lock:
            counted[str(self.path)] += 1
        return read(self)

    monkeypatch.setattr(ImageSource, "read", counting)
    return counted


@pytest.fixture
def batch() -> Batch:
    """Twenty images in a store."""
    paths = [f"memory://prefetch/{number}" for number in range(20)]
    for number, path in enumerate(paths):
        with fsspec.open(path, "wb") as file:
            file.write(bytes([number]) * SIZE)
    return Batch.from_lists(paths)


def until(true: object) -> None:
    """Waits a little for what threads are about to do."""
    for _ in range(100):
        if true():  # type: ignore[operator]
            return
        time.sleep(0.02)
    raise AssertionError("did not happen")


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("room", [1, 5 * SIZE, 2**20])
def test_each_image_is_read_once_in_whatever_order_they_are_taken(
    batch: Batch, reads: Counter[str], monkeypatch: pytest.MonkeyPatch, room: int, order: int
) -> None:
    monkeypatch.setattr(prefetch, "ROOM", room)
    Prefetch().begin(batch)
    taken = [image.read() for image in batch.parts.images[::order]]
    assert taken == [bytes([number]) * SIZE for number in range(20)][::order]
    assert set(reads.values()) == {1}


def test_nothing_more_is_asked_for_while_what_came_fills_the_room(
    batch: Batch, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "ROOM", 5 * SIZE)
    monkeypatch.setattr(prefetch, "REQUESTS", 2)
    Prefetch().begin(batch)
    until(lambda: len(reads) >= 5)
    time.sleep(0.1)
    assert len(reads) <= 6  # one was on its way when the fifth came
    for image in batch.parts.images[:5]:
        image.read()
    until(lambda: len(reads) >= 10)
    assert len(reads) <= 11


def test_an_image_that_is_missing_is_told_of_when_it_is_read_and_takes_no_room(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "ROOM", 1)
    missing = Batch.from_lists(["memory://prefetch/none"] * 3)
    ahead = Prefetch()
    ahead.begin(missing)
    ahead.begin(batch)
    for image in missing.parts.images:
        with pytest.raises(Exception, match="missing: no such file"):
            image.read()
    assert batch.parts.images[0].read() == bytes(SIZE)
