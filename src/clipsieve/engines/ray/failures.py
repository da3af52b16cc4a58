"""What a cluster reports, as the errors that this package raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clipsieve.errors import EngineError, UsageError


def import_ray() -> Any:
    """Ray. Raises ``UsageError`` where it is not installed."""
    try:
        import ray
    except ImportError:
        raise UsageError("engine ray needs Ray: pip install 'clipsieve[ray]', here and on every node") from None
    return ray


@contextmanager
def told() -> Iterator[None]:
    """Raises again what work on another machine has raised, as itself; what Ray gives up on as ``EngineError``."""
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as failure:
        cause = failure.cause if isinstance(failure.cause, Exception) else None
        if cause is None or isinstance(cause, RayError):
            raise EngineError(_gave_up(failure)) from failure
        raise cause from failure
    except (RayError, ExecutionTimeoutError) as failure:
        raise EngineError(_gave_up(failure)) from failure


def _gave_up(failure: Exception) -> str:
    first = str(failure).strip().split("\n", 1)[0][:200]
    return (
        f"the cluster gave up ({type(failure).__name__}: {first}); "
        "what is committed stays, run the same command again to go on"
    )
