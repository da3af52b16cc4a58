"""The connection to a cluster: found or started, asked what it has, and left as it was found."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipsieve.engines.ray.failures import import_ray, told
from clipsieve.engines.ray.model import Model, ask
from clipsieve.engines.ray.place import Place
from clipsieve.engines.ray.spread import InTasks
from clipsieve.errors import EngineError, RecipeError

if TYPE_CHECKING:
    from clipsieve.core.embed import Prompt
    from clipsieve.recipe import Recipe

ENCODER_CPUS = 0.1
"""What an encoder reserves beside its share of a GPU: it works in bursts, between which the CPU is the tasks'."""

PATIENCE_S = 20
"""How long the cluster may take to find room for the model before that is worth a line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """A connected cluster and what of it a run takes.

    ``encoders`` are the smallest and the largest number of copies of the model, ``gpus`` the share of a GPU that each
    has; 0 for the CPU.
    """

    place: Place
    cpus: int
    gpus: float
    encoders: tuple[int, int]
    by_client: bool
    """Whether Ray's client is between this process and the cluster (``ray://``): Ray Data must be driven from there."""

    @property
    def spread(self) -> InTasks:
        """Work on many items over all nodes."""
        return InTasks(place=self.place)

    @property
    def encoder_threads(self) -> int | None:
        """Threads of a forward pass: a CPU's share of all cores, None on a GPU."""
        return None if self.gpus else max(1, self.cpus // self.encoders[0])

    def ask_model(self, recipe: Recipe, prompts: Sequence[Prompt], say: Callable[[str], None]) -> Model:
        """Has a node that could encode load the model, and tell of it. Raises what loading it raises."""
        import ray

        task = ray.remote(num_cpus=ENCODER_CPUS, num_gpus=self.gpus)(ask)
        answer = task.remote(self.place, recipe, prompts)
        ready, _ = ray.wait([answer], timeout=PATIENCE_S)
        if not ready:
            what = f"{self.gpus:g} GPU" if self.gpus else "a CPU"
            say(f"waiting for a node with {what} to load {recipe.model}")
        with told():
            model: Model = ray.get(answer)
        return model


@contextmanager
def connected(recipe: Recipe, place: Place) -> Iterator[Cluster]:
    """The cluster at the recipe's ``address``, else at ``RAY_ADDRESS``, else one started here and stopped afterwards.

    A connection that this process has already is used and kept. Raises ``EngineError`` when there is none to be had.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, recipe.address or os.environ.get("RAY_ADDRESS") or "local")
    try:
        yield _measured(ray, recipe, place)
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    # Ray's core writes to the terminal by itself, such as that an actor whose arguments are lost cannot restart.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options["include_dashboard"] = False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what we start here reports to nobody
    try:
        _knock(address)
        with _hushed():
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, ImportError, TimeoutError, OSError) as failure:
        first = str(failure).strip().split("\n", 1)[0].rstrip(".")
        raise EngineError(
            f"cannot connect to a Ray cluster at {address}: {first}; "
            "start one (`ray start --head`), give its --address, or leave that out to use this machine alone"
        ) from None


def _knock(address: str) -> None:
    """Raises ``OSError`` where nobody listens: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _hushed() -> Iterator[None]:
    """Nothing on standard error: Ray's core tells there what its level of logging is, whatever that level."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _measured(ray: Any, recipe: Recipe, place: Place) -> Cluster:
    nodes: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = sum(node.get("GPU", 0) for node in nodes)
    share = recipe.encoder_gpus
    if share is None:
        share = 1.0 if gpus and recipe.device.partition(":")[0] in ("auto", "cuda") else 0.0
    if sum(cpus) < 1:
        raise EngineError("the cluster has no CPU for tasks; give a node at least one (`ray start --num-cpus`)")
    if recipe.encoders is None:
        found = int(gpus / share) if share else sum(count > 0 for count in cpus)
        encoders = (max(1, found), max(1, found))
    else:
        encoders = recipe.encoders
    if share and gpus and share > max(node.get("GPU", 0) for node in nodes):
        raise RecipeError(f"encoder_gpus {share:g} is more than any node has")
    by_client = bool(ray.util.client.ray.is_connected())
    return Cluster(place=place, cpus=sum(cpus), gpus=share, encoders=encoders, by_client=by_client)
