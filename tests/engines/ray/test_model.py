"""A model on a cluster: a batch that does not fit is halved, and another model than elsewhere is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clipsieve.engines.ray import steps
from clipsieve.engines.ray.model import Room, ask, load_same
from clipsieve.engines.ray.place import Place
from clipsieve.errors import EngineError, ModelError
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


def test_a_node_that_does_not_see_the_run_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Job:
        place = Place(folder=str(tmp_path))

        class committer:  # noqa: N801 - stands in for an object
            folders = (tmp_path, tmp_path / "run")

    def received(reference: Any) -> type[Job]:
        return Job

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(steps, "received", received)
    with pytest.raises(EngineError, match=r"node .* does not see .*/run: .* the same for all nodes"):
        steps._known("a reference")
