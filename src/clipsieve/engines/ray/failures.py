"""What a cluster reports, as the errors that this package raises."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from clipsieve.errors import ClipsieveError, EngineError, UsageError


class ProcessesDiedError(EngineError):
    """A shard whose processes have all died, so that it is not begun anew once more."""


def import_ray() -> Any:
    """Ray. Raises ``UsageError`` where it is not installed."""
    try:
        import ray
    except ImportError:
        raise UsageError("engine ray needs Ray: pip install 'clipsieve[ray]', here and on every node") from None
    return ray


@contextmanager
def translate_ray_errors() -> Iterator[None]:
    """Raises again what work on another machine has raised, as itself, and all else as ``EngineError``.

    Around nothing but calls of Ray: when a cluster changes beneath it, its own code raises more than ``RayError``.
    """
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as failure:
        cause = failure.cause if isinstance(failure.cause, Exception) else None
        if cause is None or isinstance(cause, RayError):
            raise EngineError(_gave_up(failure)) from failure
        raise cause from (failure if isinstance(cause, ClipsieveError) else None)
    except ClipsieveError:
        raise
    except Exception as failure:
        raise EngineError(_gave_up(failure)) from failure


def end(kill: Callable[[Any], Any], what: Any) -> None:
    """Has ``ray.kill`` or ``ray.cancel`` end what was begun; where the connection is lost, that has ended it."""
    import ray

    with suppress(ConnectionError):
        if ray.is_initialized():
            kill(what)


def serialize_error(failure: Exception) -> tuple[bytes, str]:
    """A failure as it travels: pickled, and in words for where the pickle cannot be read.

    Where it was raised goes along as a note, which shows where a traceback does.
    """
    import ray

    where = "".join(traceback.format_exception(failure))
    words = f"{type(failure).__name__}: {failure}"
    failure.add_note(f"raised on a node of the cluster:\n{where}")
    try:
        data = ray.cloudpickle.dumps(failure)
        again = pickle.loads(data)
        if (type(again).__name__, str(again)) == (type(failure).__name__, str(failure)):
            return data, words
    except Exception:  # whatever a class of the user's raises when it is made anew
        pass
    return pickle.dumps(_in_words(words)), words


def deserialize_error(data: Any, words: str) -> Exception:
    """The failure again; in words where this process lacks its class."""
    try:
        failure = pickle.loads(data)
    except Exception:  # its class may be one that only nodes have
        return _in_words(words)
    assert isinstance(failure, Exception)
    return failure


def _in_words(words: str) -> EngineError:
    return EngineError(f"a node could not do a shard ({words}); run the same command again to go on")


def _gave_up(failure: Exception) -> str:
    first = str(failure).strip().split("\n", 1)[0][:200]
    return (
        f"the cluster gave up ({type(failure).__name__}: {first}); "
        "what is committed stays, run the same command again to go on"
    )
