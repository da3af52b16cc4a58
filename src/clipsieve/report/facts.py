"""What a run says of itself beside its numbers: how far it got, model, settings, versions and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import yaml

from clipsieve.core import storage
from clipsieve.core.ledger import Counts
from clipsieve.core.text import without_password
from clipsieve.core.urls import FetchPolicy
from clipsieve.engines.usage import Usage, advice
from clipsieve.plan import Plan
from clipsieve.report.words import plural

IN_SECTIONS = ("read", "model", "keep", "dedup", "write")
"""Keys of a recipe that are told in places of their own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """A run as a report or a terminal tells of it; ``steps`` are all that drops images, in the order it decides.

    ``name`` is the path of its folder. ``done`` of ``shards`` are committed. ``executed`` and ``summary`` are as
    ``Run`` has them.
    """

    name: str
    ledger: pa.Table
    counts: Counts
    plan: Plan
    steps: Sequence[str]
    duplicates: Mapping[str, Any] | None
    executed: Mapping[str, Any]
    summary: Mapping[str, Any]
    operators: Sequence[Usage]
    """How busy the parts of a cluster were; empty for a run on one machine."""
    output: str | None
    done: int
    shards: int

    @property
    def title(self) -> str:
        """What the folder is called, from wherever one looks at it."""
        return storage.place(self.name).resolve().name

    @property
    def finished(self) -> str | None:
        """When the last command of the run ended, in UTC; None when that is not known."""
        with suppress(OSError):
            ended = (storage.place(self.name) / "summary.json").stat().st_mtime
            return f"{datetime.fromtimestamp(ended, UTC):%Y-%m-%d %H:%M} UTC"
        return None

    @property
    def unfinished(self) -> str | None:
        """What is to be said of a run that is not finished."""
        if self.done == self.shards:
            return None
        return f"unfinished: {self.done:,} of {self.shards:,} shards are done, and all numbers are of those"

    @property
    def about(self) -> list[tuple[str, str]]:
        """Source, model, settings, versions and time, each in one line with its name."""
        recipe = self.plan.recipe
        source = without_password(", ".join(recipe.read.path))
        fingerprint = self.executed.get("encoder")
        model = f"{recipe.model} ({fingerprint})" if fingerprint else "none was needed"
        versions = self.executed.get("versions") or {}
        told = [
            ("source", f"{source} ({self.plan.layout})"),
            ("model", model),
            ("settings", ", ".join(self._settings())),
        ]
        if self.output:
            told.append(("output", without_password(self.output)))
        told.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
        if self.finished:
            told.append(("finished", self.finished))
        if "seconds" in self.summary:
            told.append(("time", self._time()))
        return told

    def _settings(self) -> list[str]:
        """What the recipe says beside its sections; its lists and options are in the recipe itself."""
        recipe = self.plan.recipe
        values = {key: value for key, value in recipe.identity().items() if key not in IN_SECTIONS and key != "scores"}
        if recipe.fetch is not None:  # what is not said otherwise is as usual
            usual = FetchPolicy().identity()
            values["fetch"] = {key: value for key, value in values["fetch"].items() if value != usual[key]}
        names = [f"{key} {_plain(value)}" for key, value in values.items() if value]
        return [*names, f"scores {' '.join(recipe.scores)}"] if recipe.scores else names

    def _time(self) -> str:
        told = duration(self.summary["seconds"])
        scoring = self.summary.get("scoring_seconds")
        of_it = "" if scoring is None else f", scoring {duration(scoring)} of it"
        whole = self.summary.get("timed_images") == self.counts.images.total
        return f"{told}{of_it}" + ("" if whole else " (of the last command, where the run was resumed)")

    @property
    def stages(self) -> list[tuple[str, float]]:
        """How long each stage took, in seconds summed over the threads; empty where it was not measured."""
        return [(str(stage["stage"]), float(stage["seconds"])) for stage in self.summary.get("stages", ())]

    @property
    def advice(self) -> str:
        """What to add to a cluster to go faster; empty where nothing is to be said."""
        return advice(self.operators)

    @property
    def timed(self) -> str:
        """Of what ``stages`` is the time."""
        images = self.summary.get("timed_images")
        return "summed over threads" + ("" if images is None else f", of {plural(images, 'image')}")

    @property
    def recipe(self) -> str:
        """The recipe as executed, in YAML."""
        identity = self.plan.recipe.identity()
        return without_password(yaml.safe_dump(identity, sort_keys=False, allow_unicode=True, width=100))


def duration(seconds: float) -> str:
    """A time a person can read: ``0.42 s``, ``12.3 s``, ``3 min 20 s``, ``2 h 15 min``."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_plain(one)}" for key, one in value.items())
    return "on" if value is True else str(value)
