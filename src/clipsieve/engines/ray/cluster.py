"""The connection to a cluster: found or started, asked what it has, and left as it was found."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clipsieve.engines.ray.failures import end, import_ray, translate_ray_errors
from clipsieve.engines.ray.last_words import last_words
from clipsieve.engines.ray.model import ModelInfo, load_model_info
from clipsieve.engines.ray.spread import CPUS, InTasks
from clipsieve.engines.ray.worker_environment import WorkerEnvironment, named_images
from clipsieve.errors import EngineError, RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from clipsieve.core.contracts import Reader, Shard
    from clipsieve.core.embed import Prompt
    from clipsieve.engines.commit import Committer
    from clipsieve.recipe import Recipe

ENCODER_CPUS = 0.1
"""What the encoders of a node reserve beside their GPUs: they work in bursts, between which the CPU is the tasks'."""

PATIENCE_S = 20
"""How long the cluster may take to find room for the model before that is worth a line."""

REMIND_S = 60
"""After how long it is said again."""

STUCK_S = 60 * 60
"""How long no node may have loaded the model before the run ends: longer than a new node takes to start."""

CLIENT_ATTEMPTS = 4
"""How often Ray's client is given a server of its own: as Ray starts it, it now and then dies or hangs at once.

See https://github.com/ray-project/ray/issues/63202.
"""

CLIENT_PORT = 10001
"""The port of Ray's client when ``ray://HOST`` names no port."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """A connected cluster and what of it a run takes.

    ``encoders`` are the smallest and the largest number of copies of the model, ``gpus`` the share of a GPU that each
    has; 0 for the CPU.
    """

    environment: WorkerEnvironment
    nodes: int
    """Those with a CPU."""
    cpus: int
    """Those at the start; nodes may join."""
    tasks: int
    """Those that find room at the same time."""
    gpus: float
    encoders: tuple[int, int]
    by_client: bool
    """Whether Ray's client is between this process and the cluster (``ray://``): Ray Data must be driven from there."""

    @property
    def spread(self) -> InTasks:
        """Work on many items over all nodes."""
        return InTasks(environment=self.environment)

    @property
    def sharing(self) -> int | None:
        """Encoders that share the CPUs of a node, over which Ray spreads them; None on GPUs."""
        return None if self.gpus else math.ceil(self.encoders[1] / self.nodes)

    @property
    def encoder_cpus(self) -> float:
        """What each encoder reserves of a CPU.

        Wherever Ray puts them, on some node they take no more than ``ENCODER_CPUS``, so that a task fits beside them.
        Rounded down, since Ray itself rounds to four digits.
        """
        return math.floor(10_000 * ENCODER_CPUS / math.ceil(self.encoders[1] / self.nodes)) / 10_000

    def cpus_now(self) -> int:
        """The CPUs that the cluster has by now."""
        import ray

        with translate_ray_errors():
            return int(ray.cluster_resources().get("CPU", 0))

    def placed(self, recipe: Recipe) -> Recipe:
        """The recipe for whoever loads its model: on the CPU where no GPU is taken, though processes may see one."""
        on_cpu = not self.gpus and recipe.device == "auto"
        return recipe.model_copy(update={"device": "cpu"}) if on_cpu else recipe

    @contextmanager
    def shared(self, reader: Reader, shards: Sequence[Shard], committer: Committer) -> Iterator[Cluster]:
        """The cluster for a run over ``shards``: all nodes must see their images and the folders of the committer."""
        prefix = committer.output.prefix if committer.output is not None else ""
        images = named_images(reader, shards)
        with self.environment.reading(images).writing(committer.folders, prefix) as environment:
            yield replace(self, environment=environment)

    def model_info(self, recipe: Recipe, prompts: Sequence[Prompt], say: Callable[[str], None]) -> ModelInfo:
        """Has a node that could encode load the model, and tell of it. Raises what loading it raises."""
        import ray

        task = ray.remote(num_cpus=ENCODER_CPUS, num_gpus=self.gpus)(load_model_info)
        with translate_ray_errors():
            answer = task.remote(self.environment, self.placed(recipe), prompts)
        began = time.monotonic()
        patience = PATIENCE_S
        what = f"{self.gpus:g} GPU" if self.gpus else "a CPU"
        while not _has_come(answer, patience):
            waited = time.monotonic() - began
            if waited > STUCK_S:
                end(ray.cancel, answer)
                raise EngineError(
                    f"no node with {what} has loaded {recipe.model} within {waited / 60:.0f} min; add one, or say "
                    "--encoder-gpus 0 for the CPU"
                )
            say(f"waiting for a node with {what} to load {recipe.model} ({waited:.0f} s so far)")
            patience = REMIND_S
        with translate_ray_errors():
            model: ModelInfo = ray.get(answer)
        return model


def _has_come(answer: Any, patience: float) -> bool:
    """Whether the result of a task is there, within so many seconds."""
    import ray

    with translate_ray_errors():
        return bool(ray.wait([answer], timeout=patience)[0])


@contextmanager
def connected(recipe: Recipe, out: Path, reader: Reader, say: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster at the recipe's ``address``, else at ``RAY_ADDRESS``, else one started here and stopped afterwards.

    It is for a run into ``out``, and all its nodes must see what ``reader`` reads. A connection that this process has
    already is used and kept. ``say`` hears what takes a while. Raises ``EngineError`` when there is none to be had.
    """
    ray = import_ray()
    source = (file.path for file in reader.files())
    environment = WorkerEnvironment.of(recipe, str(out)).reading(source)
    ours = not ray.is_initialized()
    by_variable = os.environ.get("RAY_ADDRESS")
    address = recipe.address or by_variable or "local"
    if ours:
        say("starting Ray on this machine" if address == "local" else f"connecting to the Ray cluster at {address}")
        _connect(ray, address, "" if recipe.address or not by_variable else " (which RAY_ADDRESS says)")
    elif recipe.address is not None:
        _check_same(ray, recipe.address)
    try:
        with last_words():
            yield _measured(ray, recipe, environment, can_grow=not (ours and address == "local"))
    finally:
        if ours:
            ray.shutdown()


def _check_same(ray: Any, address: str) -> None:
    """Raises ``RecipeError`` where this process is connected to another cluster than the one at ``address``."""
    if ray.util.client.ray.is_connected():
        connected = f"ray://{ray.util.client.ray.get_context().client_worker._conn_str}"
    else:
        connected = ray.get_runtime_context().gcs_address
    if address != "auto" and not _lead_to_one(address, connected, ray.util.get_node_ip_address()):
        raise RecipeError(
            f"address {address}: this process is connected to the cluster at {connected}; leave the address out to use "
            "that one, or call ray.shutdown() before"
        )


def _lead_to_one(address: str, connected: str, own: str) -> bool:
    """Whether two addresses are of the same cluster, seen from this machine, which is at ``own`` in it."""
    try:
        (host, port), (other, other_port) = _host_and_port(address), _host_and_port(connected)
    except ValueError:
        return False
    if address.startswith("ray://") != connected.startswith("ray://") or port != other_port:
        return False
    return bool(_known_as(host, own) & _known_as(other, own))


def _known_as(host: str, own: str) -> set[str]:
    """A host and its addresses; where one of them is a loopback, this machine's ``own`` too."""
    found = {host}
    with suppress(OSError, UnicodeError):
        found |= {str(known[4][0]) for known in socket.getaddrinfo(host, None)}
    return found | {own} if any(one.startswith("127.") or one == "::1" for one in found) else found


def _host_and_port(address: str) -> tuple[str, int | None]:
    """Those of ``HOST:PORT`` or ``ray://HOST:PORT``. Raises ``ValueError`` where they cannot be told apart."""
    parts = urlsplit(f"//{address.removeprefix('ray://')}")
    return parts.hostname or "", parts.port or (CLIENT_PORT if address.startswith("ray://") else None)


def _connect(ray: Any, address: str, who: str) -> None:
    # Ray's core writes to the terminal by itself, such as that an actor whose arguments are lost cannot restart.
    variables = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options["include_dashboard"] = False
        variables["RAY_USAGE_STATS_ENABLED"] = "0"  # what we start here reports to nobody
    try:
        _check_reachable(address)
        for attempt in range(1, CLIENT_ATTEMPTS + 1):
            try:
                with _suppress_stderr(), _environment(variables):
                    ray.init(address=address, **options)
                return
            except ConnectionAbortedError:
                if attempt == CLIENT_ATTEMPTS:
                    raise
    except (RuntimeError, ValueError, ImportError, OSError) as failure:
        said = " ".join(str(failure).split())[:200].rstrip(".")
        raise EngineError(
            f"cannot connect to a Ray cluster at {address}{who}: {said}; "
            "start one (`ray start --head`), give its --address, or leave that out to use this machine alone; "
            "where the cluster wants a token, set RAY_AUTH_MODE=token"
        ) from None


def _check_reachable(address: str) -> None:
    """Raises ``OSError`` where nobody listens: Ray itself would try for minutes."""
    if address in ("auto", "local") or ("://" in address and not address.startswith("ray://")):
        return
    try:
        host, port = _host_and_port(address)
    except ValueError as failure:
        raise OSError(f"{failure}; an address of IPv6 stands in brackets, such as ray://[::1]:{CLIENT_PORT}") from None
    if host and port:
        socket.create_connection((host, port), timeout=10).close()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables that are not set otherwise, while the block runs; what is started in it keeps them."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _suppress_stderr() -> Iterator[None]:
    """Nothing on standard error: Ray's core tells there what its level of logging is, whatever that level."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _measured(ray: Any, recipe: Recipe, environment: WorkerEnvironment, *, can_grow: bool) -> Cluster:
    nodes: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [node.get("GPU", 0) for node in nodes]
    share = recipe.encoder_gpus
    if share is None:
        share = 1.0 if any(gpus) and recipe.device.partition(":")[0] in ("auto", "cuda") else 0.0
    if sum(cpus) < 1:
        raise EngineError("the cluster has no CPU for tasks; give a node at least one (`ray start --num-cpus`)")
    if recipe.encoders is None:
        found = sum(_room(count, share) for count in gpus) if share else sum(count > 0 for count in cpus)
        encoders = (max(1, found), max(1, found))
    else:
        encoders = recipe.encoders
    if share and not any(gpus) and not can_grow:
        raise RecipeError(
            f"encoder_gpus {share:g}: this machine, on which the cluster was started, has no GPU; leave it out to use "
            "the CPU, or give the --address of a cluster with one"
        )
    if share and any(gpus) and share > max(gpus):
        raise RecipeError(f"encoder_gpus {share:g} is more than any node has")
    by_client = bool(ray.util.client.ray.is_connected())
    return Cluster(
        environment=environment,
        nodes=sum(count > 0 for count in cpus),
        cpus=sum(cpus),
        tasks=sum(int(count / CPUS) for count in cpus),
        gpus=share,
        encoders=encoders,
        by_client=by_client,
    )


def _room(gpus: float, share: float) -> int:
    """Encoders that find room on the GPUs of a node: one is on whole GPUs, or with others on a part of one."""
    return int(gpus / share) if share >= 1 else int(gpus) * int(1 / share)
