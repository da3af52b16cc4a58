"""CLIP and its relatives through transformers: any dual encoder with image and text features, in one interface.

Weights are read from safetensors files only and no code of a model's own is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import warnings
from bisect import bisect_right
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

from clipsieve.core.threads import cores
from clipsieve.encoders.hub import TOKENIZER, weights_of
from clipsieve.encoders.preprocess import Preprocessing, first_line, read_preprocessing
from clipsieve.errors import ModelError

if TYPE_CHECKING:
    from clipsieve.core.contracts import Pixels, Vectors

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# A forked process (workers of `datasets.map`) lacks the threads of its parent's OpenMP, and waits for them for ever
# unless it is told to do without.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

PADDED_TO_CONTEXT = {"siglip"}
"""Model types trained on texts that are always padded to the full context; the others stop at the end-of-text token."""


USUAL_WORDS = 48
"""About as many English words fit CLIP's context of 77 tokens."""

DECIDING = ("config.json", "tokenizer_config.json", "merges.txt", *TOKENIZER)
"""Files that decide vectors besides the weights; preprocessing counts with its settings."""


class TransformersEncoder:
    """A loaded model. Its methods may be called from several threads; its attributes are not to be changed.

    ``fingerprint`` is the same wherever the same weights, tokenizer, preprocessing and precision are used, under
    whatever name; ``description`` is for people. ``preprocessing`` is all of it that ``prepare`` needs.
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
        self.sigmoid: Final = "siglip" in model.config.model_type

        self._model = model.to(device=device, dtype=dtype).eval()
        self.preprocessing: Final = preprocessing
        self._device = device
        self._dtype = dtype
        self._scale = torch.tensor([preprocessing.scale / std for std in preprocessing.std], device=device)
        self._shift = torch.tensor(
            [mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)], device=device
        )

        self._tokenizer = tokenizer
        self._tokenizing = Lock()  # A fast tokenizer keeps truncation and padding as state of its own.
        self._most = sys.maxsize  # inputs of one forward pass; less once the memory was too small
        self._context: int = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        self._padding = "max_length" if model.config.model_type in PADDED_TO_CONTEXT else "longest"

        blank = np.zeros((1, preprocessing.height, preprocessing.width, 3), dtype=np.uint8)
        image, text = self.images(blank), self.texts(["word " * self._context])
        if image.ndim != 2 or image.shape != text.shape:
            raise ModelError(f"its images and texts have vectors of different shapes, {image.shape} and {text.shape}")
        self.dim: Final = image.shape[1]

    def prepare(self, rgb: Pixels) -> Pixels:
        """``(h, w, 3)`` uint8 to the model's input size ``(H, W, 3)`` uint8, by the model's own preprocessing."""
        return self.preprocessing.prepare(rgb)

    def images(self, prepared: Pixels) -> Vectors:
        """``(n, H, W, 3)`` uint8 to ``(n, dim)`` float32 unit vectors, in one forward pass if the memory allows.

        Raises ``ModelError`` where it is too small for one image.
        """
        return self._forward(self._images, prepared)

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Texts to ``(n, dim)`` float32 unit vectors, in one forward pass if the memory allows; one over the context is
        truncated, its end-of-text token kept. Raises ``ModelError`` where the memory is too small for one text.
        """
        return self._forward(self._texts, list(texts))

    def _forward(self, forward: Callable[[Any], Vectors], inputs: Any) -> Vectors:
        """``forward`` of all ``inputs``, in pieces that are halved, for good, when the memory was too small for one.

        Vectors are the same whatever the size of a pass.
        """
        done: list[Vectors] = []
        start = 0
        while start < len(inputs) or not done:
            piece = inputs[start : start + self._most]
            try:
                done.append(forward(piece))
                start += len(piece)
            except (RuntimeError, MemoryError) as failure:
                if not _out_of_memory(failure):
                    raise
                if len(piece) <= 1:
                    raise ModelError(
                        f"{self._device} has too little memory for one forward pass ({first_line(failure)}); "
                        "free some, or use a smaller model or --device cpu"
                    ) from failure
                self._most = len(piece) // 2
        return done[0] if len(done) == 1 else np.concatenate(done)

    @torch.inference_mode()
    def _images(self, prepared: Pixels) -> Vectors:
        pixels = torch.tensor(prepared, device=self._device).float().mul_(self._scale).sub_(self._shift)
        return _unit(self._model.get_image_features(pixel_values=pixels.permute(0, 3, 1, 2).to(self._dtype)))

    @torch.inference_mode()
    def _texts(self, texts: Sequence[str]) -> Vectors:
        with self._tokenizing:
            tokens = self._tokenizer(
                texts, padding=self._padding, truncation=True, max_length=self._context, return_tensors="pt"
            )
        return _unit(self._model.get_text_features(**tokens.to(self._device)))

    def windows(self, text: str) -> Sequence[str]:
        """The text cut into pieces that each fit the model's context, between words where a word fits; joined they
        are the text. One piece when it fits."""
        return cut(text, self._fits)

    def _fits(self, text: str) -> bool:
        with self._tokenizing:
            length = len(self._tokenizer(text, verbose=False)["input_ids"])
        return length <= self._context


def load_folder(folder: Path, *, name: str, device: str, precision: str) -> TransformersEncoder:
    """The encoder of a complete model folder; see ``clipsieve.encoders.load``. Raises ``ModelError``."""
    place = _device(device)
    if place.type == "cpu":  # torch counts the machine's processors, of which a container may have a few
        use_threads(min(torch.get_num_threads(), cores()))
    if precision == "auto":
        precision = "fp32" if place.type == "cpu" else "fp16"
    if precision not in DTYPES:
        raise ModelError(f"unknown precision {precision!r}; known are auto, {', '.join(DTYPES)}")
    with _quiet():
        config = _config(folder, name)
        preprocessing = read_preprocessing(folder, name)
        tokenizer = _tokenizer(folder, name)
        model = _model(folder, name, config)
        try:
            return TransformersEncoder(
                model=model,
                tokenizer=tokenizer,
                preprocessing=preprocessing,
                device=place,
                dtype=DTYPES[precision],
                fingerprint=_fingerprint(folder, preprocessing, precision),
                description=f"{name} ({config.model_type}, {precision} on {place.type})",
            )
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, ModelError) as failure:
            # Built and tried on one image and text: whatever fails here would fail on every image of a run.
            raise ModelError(f"model {name} cannot be used as a dual encoder: {first_line(failure)}") from failure


def cut(text: str, fits: Callable[[str], bool]) -> list[str]:
    """``text`` in pieces that fit, each as long as possible: whole words, or parts of a word that does not fit alone.

    Joined they are the text, but for white space that would be a piece of its own.
    """
    if fits(text):
        return [text]
    word_ends = [word.end() for word in re.finditer(r"\S+\s*", text)]
    pieces: list[str] = []
    start = 0
    while left := word_ends[bisect_right(word_ends, start) :]:
        end = _furthest(text, start, left, fits)
        if end == start:
            end = max(start + 1, _furthest(text, start, range(start + 1, left[0]), fits))
        pieces.append(text[start:end])
        start = end
    return [piece for piece in pieces if piece.strip()] or [text]


def _furthest(text: str, start: int, ends: Sequence[int], fits: Callable[[str], bool]) -> int:
    """The last of ``ends`` up to which ``text`` fits from ``start`` on; ``start`` when none does."""
    fitting, failing = -1, len(ends)
    n, step = min(USUAL_WORDS, len(ends)) - 1, 1  # Looks around a likely place, in steps that double, then halves.
    while failing - fitting > 1:
        if fits(text[start : ends[n]]):
            fitting, n = n, n + step
        else:
            failing, n = n, n - step
        step *= 2
        if not fitting < n < failing:
            n = (fitting + failing) // 2
    return ends[fitting] if fitting >= 0 else start


def _unit(features: Any) -> Vectors:
    # transformers 4 returns the projected vectors, transformers 5 an output that holds them.
    vectors = features if isinstance(features, torch.Tensor) else features.pooler_output
    unit: Vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return unit


def _out_of_memory(failure: Exception) -> bool:
    """Whether a forward pass failed for want of memory, on the device or on this machine."""
    # On a CPU torch says so in words only.
    return isinstance(failure, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(failure)


def use_threads(threads: int) -> None:
    """How many threads of a CPU a forward pass takes."""
    torch.set_num_threads(threads)


def devices() -> list[str]:
    """The kinds of device torch can use here, the fastest first."""
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, usable_here in usable.items() if usable_here]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(devices()[0] if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as failure:
        raise ModelError(f"device {name!r} cannot be used here: {first_line(failure)}") from failure
    return device


def _config(folder: Path, name: str) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as failure:
        if "auto_map" in (folder / "config.json").read_text(encoding="utf-8", errors="replace"):
            raise ModelError(
                f"model {name} needs Python code of its own (trust_remote_code), which is not run"
            ) from None
        raise ModelError(f"model {name}: its config.json cannot be used: {first_line(failure)}") from failure


def _tokenizer(folder: Path, name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as failure:
        raise ModelError(f"model {name}: its tokenizer needs `pip install sentencepiece protobuf`") from failure
    except Exception as failure:  # A damaged file fails in many ways, some of them errors of Rust.
        raise ModelError(f"model {name}: its tokenizer cannot be read: {first_line(failure)}") from failure


def _model(folder: Path, name: str, config: Any) -> Any:
    kind = MODEL_MAPPING.get(type(config), None)
    if not (hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")):
        raise ModelError(f"model {name} is a {config.model_type}, which does not encode both images and texts")
    try:
        model, loaded = AutoModel.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as failure:
        raise ModelError(f"model {name}: its weights cannot be read: {first_line(failure)}") from failure
    # What is missing would be left at random values.
    if unset := sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]])):
        raise ModelError(f"model {name}: its weights lack {len(unset)} of the model's parameters, such as {unset[0]}")
    return model


def _fingerprint(folder: Path, preprocessing: Preprocessing, precision: str) -> str:
    """A hash over everything that decides vectors: the contents of the files, not their names or where they lie."""
    whole = hashlib.sha256()
    for file in [*weights_of(folder), *(folder / name for name in DECIDING)]:
        if file.is_file():
            with file.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, "sha256").digest())
    whole.update(json.dumps([asdict(preprocessing), precision], sort_keys=True).encode())
    return f"{precision}-{whole.hexdigest()[:32]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the warnings and progress bars of transformers off the terminal: what matters of them is raised here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
