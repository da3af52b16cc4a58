"""``label``: which of some labels an image shows best, by the model's own zero-shot arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.core.batch import Batch
from clipsieve.core.embed import Prompt, Prompts
from clipsieve.core.layout import Mask
from clipsieve.scorers.base import OnLists, encoder_of, prompts_of

if TYPE_CHECKING:
    from clipsieve.core.contracts import Encoder, Needs, Unit, Vectors

NONE = "none of these"
"""The label of an image whose best one is less probable than ``min_probability``."""

TEMPLATES = ("a photo of a {}",)
"""The template of Radford et al. 2021, section 3.1.4, without its full stop."""

ALL: Mapping[str, pa.DataType] = {
    "label_probabilities": pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float64())]))
}
"""The column that ``all`` adds."""


@dataclass(frozen=True, kw_only=True)
class Label(OnLists):
    """The best of ``labels`` and its probability, rounded to 5 decimals, as transformers'
    ``zero-shot-image-classification`` gives them.

    A label is put into each of ``templates`` in place of ``{}``; the vectors of its prompts are averaged. The
    probability is the softmax over all labels of the model's logit scale times the cosine (Radford et al. 2021,
    arXiv:2103.00020, section 3.1.2), in SigLIP models each label's own sigmoid. Below ``min_probability`` the label is
    ``none of these`` and the probability that of the best one. ``all`` adds ``label_probabilities``: every label with
    its probability, the best first. ``model`` is a hub id, a folder or an encoder.

    Raises ``ValueError`` for fewer than two labels (one alone would always be certain), for equal or blank ones, and
    for a template without ``{}``.
    """

    labels: Sequence[str] = ()
    templates: Sequence[str] = TEMPLATES
    min_probability: float = 0.0
    all: bool = False
    model: str | Encoder = "openai/clip-vit-base-patch32"

    columns: ClassVar[Mapping[str, pa.DataType]] = {"label": pa.string(), "label_probability": pa.float64()}
    unit: ClassVar[Unit] = "image"
    reads: ClassVar[Needs] = "vectors"
    cost: ClassVar[float] = 0.002  # ms an image of 100 labels once the vectors are there, benchmarks/pixel_scorers.py

    def __post_init__(self) -> None:
        # Lists, as YAML gives them, become tuples, so that equal scorers are equal and can be hashed.
        object.__setattr__(self, "labels", _texts("labels", self.labels))
        object.__setattr__(self, "templates", _texts("templates", self.templates))
        if len(self.labels) < 2:
            raise ValueError("labels must be two or more to choose between, such as [cat, dog]")
        if NONE in self.labels:
            raise ValueError(f"{NONE!r} is what an image below min_probability is called; choose another word")
        for template in self.templates:
            if "{}" not in template:
                raise ValueError(f"the template {template!r} has no {{}} for the label; write 'a photo of a {{}}'")
        if isinstance(self.min_probability, bool) or not isinstance(self.min_probability, (int, float)):
            raise ValueError(f"min_probability is a number, not {self.min_probability!r}")
        if not 0 <= self.min_probability <= 1:
            raise ValueError(f"min_probability lies between 0 and 1, not at {self.min_probability:g}")
        if not isinstance(self.all, bool):
            raise ValueError(f"all is true or false, not {self.all!r}")
        if self.all:
            # Beside the class's columns, which are those that a rule can name: no rule reads a list of structs.
            object.__setattr__(self, "columns", {**self.columns, **ALL})

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """For each label its wordings, one a template."""
        return tuple(tuple(template.replace("{}", label) for template in self.templates) for label in self.labels)

    @property
    def choices(self) -> Mapping[str, Sequence[str]]:
        """What ``label`` can be."""
        return {"label": (*self.labels, NONE) if self.min_probability else self.labels}

    def score(self, batch: Batch) -> Mapping[str, pa.Array]:
        """string and float64 in [0, 1]; null and NaN for an image without a vector."""
        return self.of_vectors(batch.image_vectors, batch.prompted(self.prompts))

    def of_vectors(self, images: Vectors, prompts: Prompts) -> Mapping[str, pa.Array]:
        """The columns of ``images`` ``(n, dim)`` against what the model made of this scorer's prompts."""
        found = probabilities(images, prompts.of(self.prompts), prompts)
        present: Mask = np.asarray(~np.isnan(found).any(axis=1), dtype=bool)
        best = found.argmax(axis=1)
        best_probability = np.take_along_axis(found, best[:, None], axis=1)[:, 0].round(5)
        names = np.array([*self.labels, NONE], dtype=object)
        chosen = np.where(best_probability < self.min_probability, len(self.labels), best)
        columns = {
            "label": pa.array(names[chosen], pa.string(), mask=~present),
            "label_probability": pa.array(best_probability, pa.float64()),
        }
        return columns | {name: _ranked(found, present, names, type) for name, type in ALL.items() if self.all}

    def _batch(self, images: Sequence[Any], texts: Sequence[str | Sequence[str] | None] | None) -> Batch:
        encoder = encoder_of(self.model)
        batch = Batch.from_lists(images, texts, encoder=encoder)
        batch.prompts = prompts_of(encoder, self.prompts)
        return batch


def probabilities(images: Vectors, labels: Vectors, prompts: Prompts) -> npt.NDArray[np.float64]:
    """How probable each of ``labels`` ``(m, dim)`` is for each of ``images`` ``(n, dim)``: ``(n, m)`` in [0, 1], NaN
    for an image without a vector."""
    logits = images.astype(np.float64) @ labels.T.astype(np.float64) * prompts.logit_scale + prompts.logit_bias
    if prompts.sigmoid:
        alone: npt.NDArray[np.float64] = 1 / (1 + np.exp(-logits))
        return alone
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    among: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return among


def _ranked(found: npt.NDArray[np.float64], present: Mask, names: npt.NDArray[Any], type: pa.DataType) -> pa.Array:
    """Every label with its probability for each image, the best first and equal ones as they are listed."""
    order = np.argsort(-found, axis=1, kind="stable")
    ranked = np.take_along_axis(found, order, axis=1).round(5)
    pairs = pa.StructArray.from_arrays(
        [pa.array(names[order].ravel(), pa.string()), pa.array(ranked.ravel())], fields=list(type.value_type)
    )
    offsets = np.arange(len(found) + 1, dtype=np.int32) * found.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pairs, type=type, mask=pa.array(~present))


def _texts(option: str, values: Any) -> tuple[str, ...]:
    """``values`` without the white space around them. Raises ``ValueError`` for what is not a list of distinct
    texts."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{option} is a list, such as {'[cat, dog]' if option == 'labels' else list(TEMPLATES)}")
    if not values and option == "templates":
        raise ValueError("templates are empty; leave them out to have the usual one")
    texts: dict[str, str] = {}
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{option} are texts; put {value!r} in quotes")
        if not (text := " ".join(value.split())):
            raise ValueError(f"{option} hold a blank one; leave it out")
        # Most models read texts in lower case: labels that differ in case alone would share their probability.
        if (twice := texts.get(text.casefold())) is not None:
            raise ValueError(f"{option} hold {text!r} twice" + ("" if twice == text else f", once as {twice!r}"))
        texts[text.casefold()] = text
    return tuple(texts.values())
