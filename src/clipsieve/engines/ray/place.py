"""What a process on a node must know before it opens a path, so that paths mean there what they mean here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clipsieve.core import storage
from clipsieve.errors import RecipeError

if TYPE_CHECKING:
    from clipsieve.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folder that relative paths are in, and how storage is reached; options may be secrets and are not shown."""

    folder: str
    storage_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, recipe: Recipe) -> Place:
        """That of this process."""
        return cls(folder=os.getcwd(), storage_options=recipe.storage_options)

    def enter(self) -> None:
        """Makes this process see paths as the one that began the run does."""
        with suppress(FileNotFoundError, NotADirectoryError):  # a node may lack it where all paths are URLs
            os.chdir(self.folder)
        storage.configure(self.storage_options)


def sent(value: Any) -> Any:
    """A reference to ``value`` in the cluster's memory. Raises ``RecipeError`` for what cannot be sent.

    Pickled here: where it fails, Ray would print all that the value holds, secrets too.
    """
    import ray

    try:
        data = ray.cloudpickle.dumps(value)
    except Exception as failure:  # whatever an object of the user's raises
        raise RecipeError(
            f"cannot be sent to other processes ({type(failure).__name__}: {failure}); "
            "filters in Python must be picklable to run on a cluster: keep locks, files and connections out of them"
        ) from failure
    return ray.put(data)


def received(reference: Any) -> Any:
    """The value of a reference that was ``sent``."""
    import ray

    return ray.cloudpickle.loads(ray.get(reference))
