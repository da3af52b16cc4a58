"""Models that turn images and texts into unit vectors of one space; ``load`` finds one by name.

This package is the only owner of torch and transformers, and imports them only when a model is loaded.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from clipsieve.encoders.transformers import TransformersEncoder

__all__ = ["Precision", "devices", "load", "precision_of", "use_threads"]

Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16"]


def load(
    name: str, *, revision: str | None = None, device: str = "auto", precision: Precision = "auto"
) -> TransformersEncoder:
    """The encoder of that name: ``demo`` (bundled), a local model folder, or an id on the Hugging Face hub.

    ``revision`` pins a hub model to a branch, a tag or a commit. ``device`` is a torch device, ``auto`` the best there
    is (CUDA, MPS, CPU). ``precision`` is that of weights and forward passes, ``auto`` fp32 on a CPU and fp16 on a GPU;
    vectors are float32 in any case.

    Raises ``ModelError`` when the model is not on disk and cannot be fetched, is incomplete or damaged, has only
    pickled weights, needs code of its own, or does not encode both images and texts.
    """
    from clipsieve.encoders.hub import find_model

    folder = find_model(name, revision)
    _let_waiting_threads_sleep()
    from clipsieve.encoders import transformers

    return transformers.load_folder(folder, name=name, device=device, precision=precision)


def precision_of(fingerprint: str) -> Precision:
    """The precision of the model with that fingerprint, which begins with it; ``auto`` for one of another kind."""
    known: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
    return known.get(fingerprint.partition("-")[0], "auto")


def devices() -> list[str]:
    """The kinds of device torch can use here (``cuda``, ``mps``, ``cpu``), the fastest first."""
    _let_waiting_threads_sleep()
    from clipsieve.encoders import transformers

    return transformers.devices()


def use_threads(threads: int) -> None:
    """How many threads of a CPU a forward pass takes, in this process."""
    from clipsieve.encoders import transformers

    transformers.use_threads(threads)


def _let_waiting_threads_sleep() -> None:
    # Threads of torch that wait for each other spin by default, on the cores that decoding needs: beside other work,
    # ViT-B/32 encodes 1.5 to 3 times as many images a second when they sleep instead. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
