"""A run that reports its peak memory: ``python -m tests.engines.measured OUT ROWS`` prints megabytes.

Caption rows of equal size go through reader, image work, model and writer; only their number changes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil

from clipsieve import api, readers, writers
from clipsieve.api import execution
from clipsieve.core.ledger import Counts
from clipsieve.engines.commit import Committer, Output
from clipsieve.engines.local import LocalEngine
from clipsieve.plan import make_plan
from clipsieve.recipe import Recipe
from clipsieve.runfolder import RunFolder
from tests.fakes import ColourEncoder, image_bytes

ROWS_A_SHARD = 100
"""So small that a few hundred rows already fill every queue."""


def peak(out: Path, rows: int) -> int:
    """The largest resident memory of this process while it curates ``rows`` rows, in bytes."""
    out.mkdir()
    for number in range(10):
        (out / f"{number}.png").write_bytes(image_bytes("red", (160, 120), seed=number))
    source = out / "captions.jsonl"
    cells = ({"image": f"{row % 10}.png", "caption": f"a red thing, number {row}"} for row in range(rows))
    source.write_text("".join(f"{json.dumps(cell)}\n" for cell in cells))
    recipe = Recipe.build(
        {"read": str(source), "keep": ["blur >= 100", "clip_score >= 0.2"], "write": "webdataset", "vectors": True}
    )
    process, seen = psutil.Process(), [0]

    def look(images: int, counts: Counts | None) -> None:
        seen[0] = max(seen[0], process.memory_info().rss)

    plan = make_plan(recipe, "captions")
    reader = readers.open_source(str(source), shard_rows=ROWS_A_SHARD)
    with RunFolder.open(out / "run", recipe.identity(), {"encoder": ColourEncoder.fingerprint}) as folder:
        shards = folder.shards(reader.files(), reader.shards())
        output = Output(out / "output", writers.writer("webdataset", "captions"))
        committer = Committer(plan, folder, output, {})
        engine = LocalEngine(
            plan=plan, reader=reader, encoder=ColourEncoder(), sink=committer, batch_size=16, progress=look
        )
        execution.run_passes(plan, folder, shards, engine, committer, api.Silent())
    return seen[0]


if __name__ == "__main__":
    print(peak(Path(sys.argv[1]), int(sys.argv[2])) // 2**20)
