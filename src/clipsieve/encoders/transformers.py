"""CLIP and its relatives through transformers: any dual encoder with image and text features, in one interface.

Weights are read from safetensors files only and no code of a model's own is run.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from clipsieve.encoders.hub import TOKENIZER, weights_of
from clipsieve.encoders.preprocess import Preprocessing, first_line, read_preprocessing
from clipsieve.errors import ModelError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Pixels, Vectors

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

PADDED_TO_CONTEXT = {"siglip"}
"""Model types trained on texts that are always padded to the full context; the others stop at the end-of-text token."""


class TransformersEncoder:
    """A loaded model. Its methods may be called from several threads; its attributes are not to be changed.

    ``fingerprint`` is the same wherever the same weights, tokenizer, preprocessing and precision are used, under
    whatever name; ``description`` is for people.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        preprocessing: Preprocessing,
        device: torch.device,
        dtype: torch.dtype,
        fingerprint: str,
        description: str,
    ) -> None:
        self.fingerprint: Final = fingerprint
        self.description: Final = description
        # Read before the weights are rounded: exp() of a half-precision 4.605 is 0.2 % off.
        self.logit_scale: Final = float(model.logit_scale.detach().float().exp())
        self.logit_bias: Final = float(model.logit_bias.detach()) if hasattr(model, "logit_bias") else 0.0

        self._model = model.to(device=device, dtype=dtype).eval()
        self._preprocessing = preprocessing
        self._device = device
        self._dtype = dtype
        self._scale = torch.tensor([preprocessing.scale / std for std in preprocessing.std], device=device)
        self._shift = torch.tensor(
            [mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)], device=device
        )

        self._tokenizer = tokenizer
        self._tokenizing = Lock()  # A fast tokenizer keeps truncation and padding as state of its own.
        self._context = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        self._padding = "max_length" if model.config.model_type in PADDED_TO_CONTEXT else "longest"

        blank = np.zeros((1, preprocessing.height, preprocessing.width, 3), dtype=np.uint8)
        image, text = self.images(blank), self.texts(["word " * self._context])
        if image.ndim != 2 or image.shape != text.shape:
            raise ModelError(f"its images and texts have vectors of different shapes, {image.shape} and {text.shape}")
        self.dim: Final = image.shape[1]

    def prepare(self, rgb: Pixels) -> Pixels:
        """``(h, w, 3)`` uint8 to the model's input size ``(H, W, 3)`` uint8, by the model's own preprocessing."""
        return self._preprocessing.prepare(rgb)

    @torch.inference_mode()
    def images(self, prepared: Pixels) -> Vectors:
        """``(n, H, W, 3)`` uint8 to ``(n, dim)`` float32 unit vectors, in one forward pass."""
        pixels = torch.tensor(prepared, device=self._device).float().mul_(self._scale).sub_(self._shift)
        return _unit(self._model.get_image_features(pixel_values=pixels.permute(0, 3, 1, 2).to(self._dtype)))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Vectors:
        """Texts to ``(n, dim)`` float32 unit vectors, in one forward pass; one over the context is truncated, its
        end-of-text token kept."""
        with self._tokenizing:
            tokens = self._tokenizer(
                list(texts), padding=self._padding, truncation=True, max_length=self._context, return_tensors="pt"
            )
        return _unit(self._model.get_text_features(**tokens.to(self._device)))

    def windows(self, text: str) -> Sequence[str]:
        """The text cut into pieces that each fit the model's context, between words where a word fits; joined they
        are the text. One piece when it fits."""
        return cut(text, self._fits)

    def _fits(self, text: str) -> bool:
        with self._tokenizing:
            return len(self._tokenizer(text, verbose=False)["input_ids"]) <= self._context


def load_folder(folder: Path, *, name: str, device: str, precision: str) -> TransformersEncoder:
    """The encoder of a complete model folder; see ``clipsieve.encoders.load``. Raises ``ModelError``."""
    chosen, dtype = _device(device), precision
    ...
