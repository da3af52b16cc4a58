"""Values for other processes of a cluster, pickled here: where that fails, Ray would print all that a value holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clipsieve.engines.ray.failures import import_ray
from clipsieve.errors import RecipeError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Filter


def check_picklable(filters: Sequence[Filter]) -> None:
    """Raises ``RecipeError`` for filters that cannot be sent to other processes."""
    _serialized(filters)


def put_object(value: Any) -> Any:
    """A reference to ``value`` in the cluster's memory. Raises ``RecipeError`` for what cannot be sent.

    A reference, since Ray shows the arguments of an operator by their ``repr``, and these bytes may hold secrets.
    """
    return import_ray().put(_serialized(value))


def get_object(reference: Any) -> Any:
    """The value that was put."""
    ray = import_ray()
    return ray.cloudpickle.loads(ray.get(reference))


def _serialized(value: Any) -> bytes:
    ray = import_ray()
    try:
        data: bytes = ray.cloudpickle.dumps(value)
    except Exception as failure:  # whatever an object of the user's raises
        raise RecipeError(
            f"cannot be sent to other processes ({type(failure).__name__}: {failure}); "
            "filters in Python must be picklable to run on a cluster: keep locks, files and connections out of them"
        ) from failure
    return data
