"""What a stage asks of the machine; here only whether it may use a GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Resources:
    """With any GPU memory or GPU the model takes the GPU, when there is one; nothing else follows from the numbers."""

    cpus: float = 1.0
    gpu_memory_gb: float = 0.0
    gpus: float = 0.0

    @property
    def requires_gpu(self) -> bool:
        """Whether a GPU is asked for."""
        return self.gpus > 0 or self.gpu_memory_gb > 0

    @property
    def device(self) -> str:
        """The device of a recipe."""
        return "auto" if self.requires_gpu else "cpu"
