"""Indexing that kills its own process: ``python -m tests.api.killed_index RUN INDEX before|after N``.

The process dies just before or just after the N-th time that rows are stored; with ``never`` it goes through.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from clipsieve.api import search
from clipsieve.index import clickhouse, lancedb


def die_at(when: str, count: int) -> None:
    calls = iter(range(1, 1000))
    for store in (lancedb.LanceStore, clickhouse.ClickHouseStore):

        def put(self: Any, rows: Any, original: Any = store.put) -> None:
            here = next(calls) == count
            if here and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            original(self, rows)
            if here and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)

        store.put = put  # type: ignore[method-assign]


if __name__ == "__main__":
    run, index, when, count = sys.argv[1:]
    search.AT_ONCE = search.PUT = 2
    die_at(when, int(count))
    search.index_run(run, index)
