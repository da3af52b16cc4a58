"""The recipe: what to read, score, keep and write. YAML, Python and flags build the same one.

An unknown key is an error that names the nearest known one. ``Recipe.identity`` is what a run folder holds on to:
how fast a run goes (device, batch size, workers) is no part of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from clipsieve.core.decide import OnError
from clipsieve.core.embed import BATCH_SIZE, LongText
from clipsieve.core.layout import LayoutKind
from clipsieve.errors import RecipeError

DEFAULT_MODEL = "openai/clip-vit-base-patch32"
"""The model most published thresholds and tools start from."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, (list, tuple)) else [value]


Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Columns(_Strict):
    """Names of the columns of caption and list rows; what is not said is inferred."""

    image: str | None = None
    text: Listed | None = None
    id: str | None = None


class Read(_Strict):
    """Where the data is and how it is laid out; what is not said is inferred and printed."""

    path: Listed
    format: Literal["jsonl", "csv", "parquet", "webdataset", "folder"] | None = None
    layout: LayoutKind | None = None
    columns: Columns = Columns()
    root: str | None = None
    """Folder of relative image paths; by default that of the file that names them."""


class Keep(_Strict):
    """A rule in its long form."""

    rule: str
    drop: Literal["image", "sample"] | None = None
    missing: float | None = None


class Write(_Strict):
    """Where the survivors go; ``path`` is a folder, by default ``output`` in the run folder."""

    format: Literal["jsonl", "csv", "parquet", "webdataset"]
    path: str | None = None
    samples_per_shard: int | None = Field(default=None, ge=1)
    scores: bool = False
    """Adds the scores as columns."""


def _read(value: Any) -> Any:
    return value if isinstance(value, (Mapping, Read)) else {"path": value}


def _keep(value: Any) -> Any:
    return [item if isinstance(item, (Mapping, Keep)) else {"rule": item} for item in _listed(value) or ()]


WRITE_FORMATS = ("jsonl", "csv", "parquet", "webdataset")


def _write(value: Any) -> Any:
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in WRITE_FORMATS:
        return {"format": next(iter(value)), "path": next(iter(value.values()))}
    if isinstance(value, str):
        head, colon, rest = value.partition(":")
        if head in WRITE_FORMATS:
            return {"format": head, "path": rest if colon else None}
        raise ValueError(f"begin with the format, such as webdataset:{value} (one of {', '.join(WRITE_FORMATS)})")
    return value


class Recipe(_Strict):
    """A whole curation. ``Recipe.load`` reads YAML, ``Recipe.build`` takes Python values; both accept short forms."""

    read: Annotated[Read, BeforeValidator(_read)]
    model: str = DEFAULT_MODEL
    revision: str | None = None
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    keep: Annotated[tuple[Keep, ...], BeforeValidator(_keep)] = ()
    scores: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Scores to compute beside those that rules name, and options of scores: ``{qr_code: {aggregate: sum}}``."""
    score_all: bool = False
    """Scores every image, also those that an earlier rule has dropped."""
    write: Annotated[Write | None, BeforeValidator(_write)] = None
    on_error: OnError = "drop"
    check: Literal["decode", "header"] = "decode"
    long_text: LongText = "truncate"
    vectors: bool = False
    limit: int | None = Field(default=None, ge=1)
    device: str = "auto"
    batch_size: int = Field(default=BATCH_SIZE, ge=1)
    workers: int | None = Field(default=None, ge=1)

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Recipe:
        """Checks ``values``. Raises ``RecipeError`` with one line for the first thing that is wrong."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as failure:
            raise RecipeError(_explain(failure)) from None

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Reads a YAML recipe; relative paths in it are relative to the working directory, as on the command line."""
        return cls.build(load_yaml(path))

    def identity(self) -> dict[str, Any]:
        """What makes this curation this one, as plain values for YAML."""
        return self.model_dump(mode="json", exclude={"device", "batch_size", "workers"})


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, without what a run folder's recipe says of its execution. Raises ``RecipeError``."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}: give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as failure:
        raise RecipeError(f"cannot read the recipe {path}: {failure}") from None
    except yaml.YAMLError as failure:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(failure).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no recipe: it should begin with 'read:'")
    return {key: value for key, value in values.items() if key != "executed"}


def _explain(failure: ValidationError) -> str:
    error = failure.errors()[0]
    place = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = [str(step) for step in error["loc"]]
        known = _fields_at(parents)
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"recipe: unknown key {place!r}; {hint}"
    if error["type"] == "missing":
        return f"recipe: {place!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"recipe: {place}: {message[0].lower()}{message[1:]} (got {error['input']!r})"


def _fields_at(path: Sequence[str]) -> list[str]:
    models: dict[str, type[BaseModel]] = {"read": Read, "columns": Columns, "keep": Keep, "write": Write}
    names = [step for step in path if step in models]
    return list((models[names[-1]] if names else Recipe).model_fields)
