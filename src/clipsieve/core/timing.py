"""How long the threads of a run spent in each of its stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class StageTimes:
    """Seconds by stage, summed over all threads: of stages that run side by side together more than a clock shows.

    ``images`` counts those that went through.
    """

    def __init__(self) -> None:
        self.images = 0
        self._seconds: dict[str, float] = {}
        self._adding = threading.Lock()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Counts what happens within as time of ``stage``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            with self._adding:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + spent

    def add(self, seconds: Mapping[str, float]) -> None:
        """Counts time that other processes have spent, by stage."""
        with self._adding:
            for stage, spent in seconds.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + spent

    @property
    def seconds(self) -> Mapping[str, float]:
        """The seconds of each stage."""
        return dict(self._seconds)

    @property
    def stages(self) -> list[dict[str, str | float]]:
        """Each stage with its seconds, the longest first."""
        ordered = sorted(self._seconds.items(), key=lambda item: -item[1])
        return [{"stage": stage, "seconds": round(seconds, 3)} for stage, seconds in ordered]
