"""A model on a cluster: a batch that does not fit is halved, and another model than elsewhere is refused."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from clipsieve.engines.ray.model import Room, ask, load_same, threads_here
from clipsieve.engines.ray.place import Place
from clipsieve.errors import ModelError
from clipsieve.recipe import Recipe


@pytest.mark.parametrize("failure", [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory")])
def test_a_batch_that_does_not_fit_is_halved_for_good(failure: Exception) -> None:
    tried = []

    def encode(size: int) -> int:
        tried.append(size)
        if size > 8:
            raise failure
        return size

    room = Room(32)
    assert [room.fit(encode), room.fit(encode)] == [8, 8]
    assert tried == [32, 16, 8, 8]


@pytest.mark.parametrize(("size", "failure"), [(1, MemoryError("one image is too many")), (4, ValueError("other"))])
def test_what_smaller_batches_do_not_mend_is_raised(size: int, failure: Exception) -> None:
    def encode(size: int) -> int:
        raise failure

    with pytest.raises(type(failure), match=str(failure)):
        Room(size).fit(encode)


def test_a_node_with_another_model_is_named() -> None:
    recipe = Recipe.build({"read": "images", "model": "demo"})
    known = ask(Place(folder="."), recipe, [("a cat",)])
    assert load_same(recipe, known.fingerprint, None).preprocessing == known.preprocessing
    assert known.prompts is not None
    with pytest.raises(ModelError, match=r"on node .*: the model demo is another one there \(fp32-.*, elsewhere fp16"):
        load_same(recipe, "fp16-of-a-gpu", None)


@pytest.mark.parametrize(("cpus", "sharing", "threads"), [(2, 1, 2), (4, 2, 2), (2, 8, 1), (64, 1, 6)])
def test_encoders_share_the_cpus_of_their_node_and_take_no_more_than_it_has(
    cpus: int, sharing: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    nodes = [{"NodeID": "another", "Resources": {"CPU": 96}}, {"NodeID": "own", "Resources": {"CPU": cpus}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "own"))
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert threads_here(sharing) == threads
    assert threads_here(None) is None
