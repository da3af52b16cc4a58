"""A model on a cluster: another one than elsewhere is refused, and copies share the CPUs of their node."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from clipsieve.engines.ray import model
from clipsieve.engines.ray.model import load_model_info, load_same, threads_here
from clipsieve.engines.ray.worker_environment import WorkerEnvironment
from clipsieve.errors import ModelError
from clipsieve.recipe import Recipe


def test_a_node_with_another_model_is_named() -> None:
    recipe = Recipe.build({"read": "images", "model": "demo"})
    known = load_model_info(WorkerEnvironment(folder="."), recipe, [("a cat",)])
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
    monkeypatch.setattr(model, "cores", lambda: 6)
    assert threads_here(sharing) == threads
    assert threads_here(None) is None
