"""The recipe: what to read, score, keep and write. YAML, Python and flags build the same one.

An unknown key is an error that names the nearest known one. ``Recipe.identity`` is what a run folder holds on to:
how fast a run goes, and where (device, batch size, workers, engine), is no part of it.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pyarrow as pa
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from clipsieve.core import storage
from clipsieve.core.decide import OnError
from clipsieve.core.embed import BATCH_SIZE, LongText
from clipsieve.core.layout import InvalidRows, LayoutKind
from clipsieve.core.text import without_password
from clipsieve.core.urls import FetchPolicy
from clipsieve.dedup.perceptual import THRESHOLD
from clipsieve.errors import RecipeError, StoreError
from clipsieve.writers import WRITERS

DEFAULT_MODEL = "openai/clip-vit-base-patch32"
"""The model most published thresholds and tools start from."""


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, (list, tuple)) else [value]


def _without_secret(path: str) -> str:
    if without_password(path) != path:
        raise ValueError(f"{without_password(path)}: a password in it would be written down; use storage_options")
    return path


def _arrow_type(name: str) -> str:
    try:
        pa.type_for_alias(name)
    except ValueError:
        raise ValueError("no name of a type in Arrow, such as float64, int64, string or timestamp[us]") from None
    return name


Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Columns(_Strict):
    """Names of the columns of caption and list rows; what is not said is inferred."""

    image: str | None = None
    text: Listed | None = None
    id: str | None = None


class Read(_Strict):
    """Where the data is and how it is laid out; what is not said is inferred and printed."""

    path: Annotated[tuple[Annotated[str, AfterValidator(_without_secret)], ...], BeforeValidator(_listed)]
    format: Literal["jsonl", "csv", "parquet", "webdataset", "folder"] | None = None
    layout: LayoutKind | None = None
    columns: Columns = Columns()
    root: str | None = None
    """Folder of relative image paths; by default that of the file that names them."""
    invalid_rows: InvalidRows = "keep"
    """What becomes of interleaved rows of an unknown modality or at a position that theirs cannot have."""
    fields: Listed | None = None
    """Columns of documents to pass through beside those that every document has; all when it is not said."""
    types: Mapping[str, Annotated[str, AfterValidator(_arrow_type)]] = Field(default_factory=dict)
    """Types of such columns by Arrow's names (``float64``, ``string``); one that the source lacks is null."""
    shard_bytes: int | None = Field(default=None, ge=1)
    """About how many bytes of the source a shard holds (64 MiB), and so how large a file of the output grows."""
    shard_rows: int | None = Field(default=None, ge=1)
    """How many rows a shard holds at most (1,024), unless one document is longer."""


class Keep(_Strict):
    """A rule in its long form."""

    rule: str
    drop: Literal["image", "sample"] | None = None
    missing: float | None = None


class Write(_Strict):
    """Where the survivors go; ``path`` is a folder, by default ``output`` in the run folder.

    A path that ends like a file of the format (``kept.jsonl``) is one file.
    """

    format: Literal["jsonl", "csv", "parquet", "webdataset"]
    path: Annotated[str, AfterValidator(_without_secret)] | None = None
    samples_per_shard: int | None = Field(default=None, ge=1)
    scores: bool = False
    """Adds the scores as columns."""
    prefix: str = ""
    """Begins the names of the files, so that runs with different ones can share a folder; ends in ``-``, ``_`` or
    ``.``, and holds nothing that reads like the number of a shard."""
    embed: bool = False
    """Writes the bytes of images into the rows of documents, where they were somewhere else."""

    @model_validator(mode="after")
    def _one_file_or_many(self) -> Write:
        ending = re.sub(r"\.(gz|zst)$", "", self.path or "")
        if not self.single_file and any(ending.endswith(writer.suffix) for writer in WRITERS.values()):
            raise ValueError(
                f"{self.path} reads like one file of another kind; one file ends in {WRITERS[self.format].suffix}, "
                "and a folder of such a name in /"
            )
        if self.single_file and self.format == "webdataset":
            raise ValueError(f"a webdataset is a folder of tars; give a folder, such as {str(self.path)[:-4]}/")
        if self.single_file and (self.samples_per_shard is not None or self.prefix):
            raise ValueError(f"{self.path} is one file; give a folder, or leave samples_per_shard and prefix out")
        told = f"prefix {self.prefix!r}"
        if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.-]*[_.-])?", self.prefix):
            raise ValueError(f"{told} is not of letters, digits, - _ and . with one of - _ . at its end")
        if re.search(r"\d{5,}[-.]", self.prefix):
            raise ValueError(f"{told} reads like a shard's number; put _ after the digits, and quote it")
        return self

    @property
    def single_file(self) -> bool:
        """Whether the output is one file."""
        return self.path is not None and self.path.endswith(WRITERS[self.format].suffix)


Links: TypeAlias = Literal["any", "leader", "group"]
Method: TypeAlias = Literal["auto", "exact", "perceptual", "semantic", "approximate"]

COSINE = 0.90
"""Cosine from which on two images are near duplicates: where published recipes for CLIP vectors begin."""


class Dedup(_Strict):
    """Which near duplicates go: of two that are linked, the one that comes later in the order of preference."""

    method: Method = "auto"
    """``exact`` compares bytes, ``perceptual`` 64-bit hashes, the others vectors; ``auto`` chooses by size."""
    threshold: float | None = None
    """The lowest cosine of near duplicates, or for ``perceptual`` the most bits in which their hashes differ."""
    keep: str = "first"
    """Which is preferred: the ``first``, the ``largest`` in pixels, or the highest of a score."""
    links: Links = "any"
    unit: Literal["image", "sample"] | None = None
    """What goes: the image alone, or its sample; as for a rule when it is not said."""
    against: Annotated[str, Field(min_length=1)] | None = None
    """A run or an index whose images come before all of these."""

    @model_validator(mode="after")
    def _in_range(self) -> Dedup:
        if self.method == "exact" and self.threshold is not None:
            raise ValueError("method exact compares bytes and takes no threshold")
        if self.threshold is None:
            return self
        if self.method == "perceptual":
            if not (0 <= self.threshold <= 64 and self.threshold.is_integer()):
                raise ValueError(
                    f"the threshold of method perceptual is a number of bits from 0 to 64, not {self.threshold:g}"
                )
        elif not -1 <= self.threshold <= 1:
            raise ValueError(f"the threshold is a cosine, from -1 to 1, not {self.threshold:g}")
        return self

    @property
    def semantic(self) -> bool:
        """Whether vectors are compared."""
        return self.method not in ("exact", "perceptual")

    @property
    def at(self) -> float:
        """The threshold in force; 0 for ``exact``."""
        if self.threshold is not None:
            return self.threshold
        return {"exact": 0.0, "perceptual": THRESHOLD}.get(self.method, COSINE)

    @property
    def text(self) -> str:
        """What stands in the ledger as the rule."""
        how = "" if self.method == "auto" else f" {self.method}"
        return f"dedup{how}" + ("" if self.method == "exact" else f" {self.at:g}")


def _read(value: Any) -> Any:
    return value if isinstance(value, (Mapping, Read)) else {"path": value}


def _dedup(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return {"threshold": float(value)}
        except ValueError:
            return {"method": value}
    if value is False:
        return None
    return {"threshold": value} if isinstance(value, (int, float)) and value is not True else value


def _keep(value: Any) -> Any:
    return [item if isinstance(item, (Mapping, Keep)) else _long_form(item) for item in _listed(value) or ()]


def _long_form(rule: Any) -> Any:
    """A rule as a mapping; a text may be one, as ``{rule: blur >= 100, drop: sample}`` on a command line."""
    if not (isinstance(rule, str) and rule.lstrip().startswith("{")):
        return {"rule": rule}
    try:
        return yaml.load(rule, _Loader)
    except yaml.YAMLError as failure:
        raise ValueError(f"{rule} is no rule: {_yaml_fault(failure)}") from None


def _fetch(value: Any) -> Any:
    if value is False:
        return None
    if value is None:
        raise ValueError("should be false, or a mapping such as {per_host: 2}")
    return {} if value is True else value


WRITE_FORMATS = ("jsonl", "csv", "parquet", "webdataset")
_FORMATS = ", ".join(WRITE_FORMATS)


def _write(value: Any) -> Any:
    if isinstance(value, Mapping) and not {"format", "path"} & set(value):
        formats = [key for key in value if key in WRITE_FORMATS]
        if len(formats) == 1:
            others = {key: other for key, other in value.items() if key != formats[0]}
            return {"format": formats[0], "path": value[formats[0]], **others}
        near = [match for key in value for match in difflib.get_close_matches(str(key), WRITE_FORMATS, n=1)]
        hint = f"; did you mean {near[0]}?" if near and not formats else ""
        raise ValueError(f"give one format and its folder, such as {{webdataset: curated/}} (one of {_FORMATS}){hint}")
    if isinstance(value, str):
        head, colon, rest = value.partition(":")
        if head in WRITE_FORMATS:
            return {"format": head, "path": rest if colon else None}
        raise ValueError(f"begin with the format, such as webdataset:{value} (one of {_FORMATS})")
    return value


def _encoders(value: Any) -> Any:
    """``4`` or ``"1-8"`` as the smallest and the largest number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)(?:-(\d+))?", value.strip())):
        return int(found[1]), int(found[2] or found[1])
    if value is None or isinstance(value, (list, tuple)):
        return value
    raise ValueError(_ENCODERS)


_ENCODERS = "give a number from 1 on, or two such as 1-8"


def _in_order(value: tuple[int, int] | None) -> tuple[int, int] | None:
    if value is not None and not 1 <= value[0] <= value[1]:
        raise ValueError(_ENCODERS)
    return value


def _somewhere(value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise ValueError("give auto, HOST:PORT or ray://HOST:PORT, or leave it out")
    return value


def _of_protocols(value: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    known = storage.protocols()
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "such as s3, gs, az or hf"
            raise ValueError(f"{name!r} is no protocol; {hint}")
    return value


def with_scores(write: Any) -> Any:
    """The ``write`` of a recipe, in any of its forms, with the scores in the output. Raises ``RecipeError``."""
    if write is None:
        raise RecipeError("--scores adds the scores to the output; say where it goes with --write")
    try:
        whole = _write(write)
    except ValueError as failure:
        raise RecipeError(f"recipe: write: {failure}") from None
    return {**whole, "scores": True} if isinstance(whole, Mapping) else write


OF_CLUSTER = ("address", "encoders", "encoder_gpus")
"""Keys of a recipe that only a cluster has."""


def with_speed(values: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The ``values`` of a recipe's file and what is ``said`` beside it, such as where it runs.

    Who says this machine has no use for what the file says of a cluster.
    """
    dropped = OF_CLUSTER if said.get("engine") == "local" else ()
    return {key: value for key, value in values.items() if key not in dropped} | dict(said)


OF_SPEED = ("device", "batch_size", "workers", "engine", *OF_CLUSTER)
"""Keys of a recipe that decide how fast a run goes, and where, and nothing of what comes of it."""


ADDED = {"fetch": FetchPolicy().identity()}
"""Keys that came later, with what a run folder means whose recipe does not have them."""


class Recipe(_Strict):
    """A whole curation. ``Recipe.load`` reads YAML, ``Recipe.build`` takes Python values; both accept short forms."""

    read: Annotated[Read, BeforeValidator(_read)]
    model: str = DEFAULT_MODEL
    revision: str | None = None
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    keep: Annotated[tuple[Keep, ...], BeforeValidator(_keep)] = ()
    dedup: Annotated[Dedup | None, BeforeValidator(_dedup)] = None
    scores: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Scores to compute beside those that rules name, and options of scores: ``{qr_code: {aggregate: sum}}``."""
    score_all: bool = False
    """Scores every image, also those that an earlier rule has dropped."""
    write: Annotated[Write | None, BeforeValidator(_write)] = None
    on_error: OnError = "drop"
    check: Literal["decode", "header"] = "decode"
    long_text: LongText = "truncate"
    vectors: bool = False
    fetch: Annotated[FetchPolicy | None, BeforeValidator(_fetch)] = FetchPolicy()
    """How images by URL are fetched; ``false`` in YAML, None here: they are not."""
    limit: int | None = Field(default=None, ge=1)
    storage_options: Annotated[Mapping[str, Mapping[str, Any]], AfterValidator(_of_protocols)] = Field(
        default_factory=dict, exclude=True, repr=False
    )
    """For each protocol (``s3``) what its filesystem is given: credentials, ``endpoint_url``. Never written down."""
    device: str = "auto"
    batch_size: int = Field(default=BATCH_SIZE, ge=1)
    workers: int | None = Field(default=None, ge=1)
    engine: Literal["local", "ray"] = "local"
    address: Annotated[str | None, AfterValidator(_somewhere)] = None
    """Of a Ray cluster: ``auto`` or ``ray://HOST:PORT``; one is started on this machine when it is not said."""
    encoders: Annotated[tuple[int, int] | None, BeforeValidator(_encoders), AfterValidator(_in_order)] = None
    """Copies of the model on a cluster, the fewest and the most: ``4``, or ``1-8``."""
    encoder_gpus: float | None = Field(default=None, ge=0)
    """GPUs of each copy, also a part of one; 0 for the CPU."""

    @model_validator(mode="after")
    def _of_a_cluster(self) -> Recipe:
        said = [name for name in OF_CLUSTER if getattr(self, name) is not None]
        if said and self.engine != "ray":
            raise ValueError(f"{', '.join(said)} is of a cluster; say engine: ray too")
        if self.encoder_gpus is not None and self.encoder_gpus > 1 and self.encoder_gpus % 1:
            raise ValueError(f"encoder_gpus is a part of one GPU or whole ones, not {self.encoder_gpus:g}")
        return self

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

    def altered(self, write: Any = None, **changes: Any) -> Recipe:
        """This recipe with ``changes``, for another run folder.

        What ``write`` does not say of the output, its format, scores and size of files, is as it was; its place cannot
        be. Raises ``RecipeError``.
        """
        kept = {"storage_options": self.storage_options}
        recipe = Recipe.build({**self.identity(), **kept, "write": write or self.write, **changes})
        if self.write is None or recipe.write is None or isinstance(write, (Write, Mapping)):
            return recipe
        same = self.write.model_dump(include={"scores", "samples_per_shard", "embed"})
        output = recipe.write.model_copy(update=same if write else {**same, "path": None})
        return recipe.model_copy(update={"write": output})

    def identity(self) -> dict[str, Any]:
        """What makes this curation this one, as plain values for YAML."""
        values = self.model_dump(mode="json", exclude=set(OF_SPEED))
        values["fetch"] = False if self.fetch is None else self.fetch.identity()
        if self.read.shard_rows is None:  # run folders of before it was there have none
            del values["read"]["shard_rows"]
        if self.dedup is not None and self.dedup.against is not None:
            values["dedup"]["against"] = without_password(self.dedup.against)
        return values


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, without what a run folder's recipe says of its execution. Raises ``RecipeError``."""
    try:
        values = yaml.load(storage.read(storage.place(path)).decode(), _Loader)
    except StoreError as failure:
        raise RecipeError(f"cannot read the recipe {path}: {failure}") from None
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}: give the path of a YAML file") from None
    except OSError as failure:
        raise RecipeError(f"cannot read the recipe {path}: {failure.strerror or failure}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is not a recipe: it is not text in UTF-8{_as_data(path)}") from None
    except (yaml.YAMLError, RecursionError) as failure:
        raise RecipeError(f"{path} is not YAML: {_yaml_fault(failure)}{_as_data(path)}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no recipe: it should begin with 'read:'{_as_data(path)}")
    return {key: value for key, value in values.items() if key != "executed"}


def _as_data(path: str | Path) -> str:
    """What to do instead with a file that is named like data."""
    name = re.sub(r"\.(gz|zst)$", "", str(path).lower())
    is_data = name.endswith((".jsonl", ".csv", ".tsv", ".parquet", ".tar"))
    return f"; to read it as data, use --read {path}" if is_data else ""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which otherwise lets the last of two equal keys win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys all differ."""
        keys: list[Any] = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} appears twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _yaml_fault(failure: Exception) -> str:
    """What is wrong and where, without the excerpt that YAML prints."""
    problem, mark = getattr(failure, "problem", None), getattr(failure, "problem_mark", None)
    if problem is None:
        return " ".join(str(failure).split())
    return f"{problem}" + (f" at line {mark.line + 1}, column {mark.column + 1}" if mark else "")


_PLAINER = {
    "a valid tuple": "a list",
    "a valid dictionary or instance of Write": "a format and a folder, such as webdataset:curated/",
    "a valid dictionary or instance of Dedup": "a cosine, such as 0.9, or a method",
    "a valid dictionary or instance of FetchPolicy": "false, or a mapping such as {per_host: 2}",
    "a valid dictionary": "a mapping",
    "a valid string": "text",
    "a valid integer": "a whole number",
    "a valid boolean": "true or false",
    "a valid number": "a number",
}
"""What pydantic calls things, and what they are called in YAML."""


def _explain(failure: ValidationError) -> str:
    errors = failure.errors()
    # A misspelt key leaves the right one missing: say what is there before what is not.
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    place = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = [str(step) for step in error["loc"]]
        known = _fields_at(parents)
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"recipe: unknown key {place!r}; {hint}"
    if error["type"] == "missing":
        return f"recipe: {place!r} is missing" + ("; say what to read" if place == "read" else "")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] != "value_error":
        for term, plainer in _PLAINER.items():
            message = message.replace(term, plainer)
        message = message.partition(", unable")[0].removeprefix("Input ")
    told = ": ".join(filter(None, ["recipe", place, message[0].lower() + message[1:]]))
    # What judges several keys together names the value in its own words, and credentials are not for any eye.
    if isinstance(error["input"], Mapping) or place.startswith("storage_options"):
        return told
    return f"{told} (got {without_password(_BRIEF.repr(error['input']))})"


def _fields_at(path: Sequence[str]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "read": Read, "columns": Columns, "keep": Keep, "dedup": Dedup, "write": Write, "fetch": FetchPolicy
    }  # fmt: skip
    names = [step for step in path if step in models]
    return list((models[names[-1]] if names else Recipe).model_fields)
