"""The model on a cluster: what others must know of it, asked once of a node that can load it, and the pool's copies."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipsieve import encoders
from clipsieve.core.embed import Prompt, Prompts, check_prompts, embed_prompts
from clipsieve.core.threads import cores
from clipsieve.encoders.preprocess import Preprocessing
from clipsieve.engines.ray.worker_environment import WorkerEnvironment
from clipsieve.errors import ModelError

if TYPE_CHECKING:
    from clipsieve.encoders.transformers import TransformersEncoder
    from clipsieve.recipe import Recipe


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelInfo:
    """All of a model that is needed without its weights."""

    fingerprint: str
    preprocessing: Preprocessing
    prompts: Prompts | None


def load_model_info(environment: WorkerEnvironment, recipe: Recipe, prompts: Sequence[Prompt]) -> ModelInfo:
    """What is to be known of the model of ``recipe``, loaded here. Raises ``ModelError`` or ``RecipeError``."""
    environment.apply()
    encoder = load(recipe)
    check_prompts(encoder, prompts)
    return ModelInfo(
        fingerprint=encoder.fingerprint,
        preprocessing=encoder.preprocessing,
        prompts=embed_prompts(encoder, prompts, recipe.batch_size) if prompts else None,
    )


def load(recipe: Recipe) -> TransformersEncoder:
    """The model of ``recipe``; a ``ModelError`` says which node has none."""
    try:
        return encoders.load(recipe.model, revision=recipe.revision, device=recipe.device, precision=recipe.precision)
    except ModelError as failure:
        raise ModelError(f"on node {socket.gethostname()}: {failure}") from failure


def load_same(recipe: Recipe, fingerprint: str, threads: int | None) -> TransformersEncoder:
    """The model of ``recipe``, which must be the one of that fingerprint, with so many threads of a CPU."""
    encoder = load(recipe)
    if encoder.fingerprint != fingerprint:
        raise ModelError(
            f"on node {socket.gethostname()}: the model {recipe.model} is another one there "
            f"({encoder.fingerprint}, elsewhere {fingerprint}); "
            "give all nodes the same files and kind of device, or say --device"
        )
    if threads is not None:
        encoders.use_threads(threads)
    return encoder


def threads_here(sharing: int | None) -> int | None:
    """Threads of a forward pass where so many encoders share the CPUs of this node; None where they have GPUs."""
    if sharing is None:
        return None
    import ray

    own = ray.get_runtime_context().get_node_id()
    given = next(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["NodeID"] == own)
    return max(1, min(cores(), int(given)) // sharing)
