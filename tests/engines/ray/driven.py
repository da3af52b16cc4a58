"""A run on a cluster, slow enough to be killed: ``python -m tests.engines.ray.driven ADDRESS SOURCE OUT MARKS``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.engines.ray.conftest import curate
from tests.engines.ray.hooks import Slow

if __name__ == "__main__":
    address, source, out, marks = sys.argv[1:]
    curate(Path(source), Path(out) / "run", Slow(marks=Path(marks), seconds=0.5), engine="ray", address=address)
