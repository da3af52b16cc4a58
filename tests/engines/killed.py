"""A run that kills its own process at a chosen instant.

The instants are those at which a file gets its final name (an output, a staged file, a committed part): the process
dies just before or just after the N-th of them. Without an instant, the run goes through.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from clipsieve import api, writers
from clipsieve.api import execution
from clipsieve.core.layout import Layout
from clipsieve.engines.commit import Committer, Output
from clipsieve.engines.local import LocalEngine
from clipsieve.plan import make_plan
from clipsieve.recipe import Recipe
from clipsieve.runfolder import RunFolder
from tests.fakes import ColourEncoder, TableReader, image_bytes

LAYOUT = Layout(kind="captions", image="image", texts=("caption",), sample_id="id")


def table() -> pa.Table:
    """Twenty rows of which some are blurred, broken or wrongly described."""
    images = [image_bytes("red" if i % 3 else "blue", (30 + i, 40), sharp=i % 7 != 3, seed=i) for i in range(20)]
    images[5] = images[5][:50]
    return pa.table({"id": [f"s{i}" for i in range(20)], "image": images, "caption": ["a red thing"] * 20})


class Told(api.Silent):
    """Hears what is said of a run."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say  # type: ignore[method-assign]


def run(out: Path, recipe: Recipe, say: Callable[[str], None] = lambda line: None) -> None:
    """Runs ``recipe`` over the table into ``out``, five rows a shard."""
    plan = make_plan(recipe, "captions")
    reader = TableReader(table(), LAYOUT, 5)
    with RunFolder.open(out, recipe.identity(), {"encoder": ColourEncoder.fingerprint}) as folder:
        shards = folder.shards(reader.files(), reader.shards())
        output = Output(out / "output", writers.writer("webdataset", "captions"))
        output.clean(folder)
        committer = Committer(plan, folder, output, {})
        engine = LocalEngine(
            plan=plan, reader=reader, encoder=ColourEncoder(), sink=committer,
            batch_size=4, progress=lambda images, counts: None,
        )  # fmt: skip
        execution.run_passes(plan, folder, shards, engine, committer, Told(say))


def die_at(when: str, count: int) -> None:
    """Lets the process die before or after the ``count``-th file gets its final name."""
    replace, calls = os.replace, iter(range(1, 10_000))

    def replace_or_die(source: Path, target: Path) -> None:
        here = next(calls) == count
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_or_die  # type: ignore[assignment]


def run_and_die(out: Path, when: str | None, count: int, more: Mapping[str, Any]) -> None:
    """Runs a recipe with ``more`` in it and dies on the way, at no instant if there is no ``when``."""
    if when is not None:
        die_at(when, count)
    recipe = {"read": "memory", "write": "webdataset", "vectors": True, **more}
    run(out, Recipe.build(recipe))
