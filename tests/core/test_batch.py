"""The batch: a view is made once, when first read, and threads do not wait for each other's."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from clipsieve.core import batch as batch_module
from clipsieve.core.batch import Batch
from tests.fakes import image_bytes


def test_a_view_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = batch_module.decode

    def counted(data: bytes, *, frame: int = 0) -> object:
        decoded.append(len(data))
        return decode(data, frame=frame)

    monkeypatch.setattr(batch_module, "decode", counted)
    batch = Batch.from_lists([image_bytes("red"), image_bytes("blue")])
    assert batch.pixels is batch.pixels
    assert len(decoded) == 2


def test_threads_make_views_of_different_batches_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=10)  # passed only by two that decode at once

    def together(data: bytes, *, frame: int = 0) -> None:
        both.wait()

    monkeypatch.setattr(batch_module, "decode", together)
    batches = [Batch.from_lists([image_bytes("red")]) for _ in range(2)]
    threads = [threading.Thread(target=lambda batch=batch: batch.pixels) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros((0, 4, 3), np.uint8), np.zeros((2, 2, 4), np.uint8)])
def test_an_array_that_is_no_picture_is_an_error(array: np.ndarray) -> None:
    batch = Batch.from_lists([array])
    assert batch.pixels == [None]
    assert batch.errors[0].startswith("undecodable: an array of")


def test_a_single_path_is_no_list_of_images() -> None:
    with pytest.raises(TypeError, match=r"put a single one in brackets: \[image\]"):
        Batch.from_lists("a.jpg")
