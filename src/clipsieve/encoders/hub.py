"""From a model's name to its complete folder: the bundled demo, a folder, the hub's cache, and only then the hub."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clipsieve.errors import ModelError

DEMO = Path(__file__).with_name("demo_clip")

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
TOKENIZER = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")

CONVERTED = {"openai/clip-vit-base-patch32": "refs/pr/15"}
"""Revision to use where the main branch has only pickled weights: the hub's own conversion of them."""

TIMEOUT_S = 5
"""How long the hub may take to answer at all; a download takes what it takes."""


def find_model(name: str, revision: str | None = None) -> Path:
    """The complete folder of the model ``name``; see ``clipsieve.encoders.load``. Raises ``ModelError``."""
    local = DEMO if name == "demo" else Path(name).expanduser()
    if name != "demo" and not local.is_dir():
        return _from_hub(name, revision or CONVERTED.get(name))
    if revision is not None:
        raise ModelError(f"a revision pins a model of the hub, but {name} is a folder; leave revision {revision!r} out")
    if lack := lacking(local):
        raise ModelError(f"model folder {local} {lack}")
    return local


def weights_of(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, in order of their names; none when it has no such weights."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return []
    try:
        parts = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, KeyError, AttributeError) as failure:
        raise ModelError(f"{folder / INDEX} is damaged: it does not list the files of the weights") from failure
    return [folder / part for part in sorted(set(parts))]


def lacking(folder: Path) -> str:
    """What a model folder lacks, to end a sentence that begins with its name; empty when it is complete."""
    if not (folder / "config.json").is_file():
        return "has no config.json: it is not a model in Hugging Face's form"
    weights = weights_of(folder)
    if not weights:
        pickled = "only pickled weights, which can run code and are not read" if _pickled(folder) else "no weights"
        return (
            f"has no {WEIGHTS} ({pickled}); convert it once where you trust it: "
            f"AutoModel.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    if absent := [part.name for part in weights if not part.is_file()]:
        return f"lacks {', '.join(absent)}, named in {INDEX}"
    for kind, names in (("image preprocessing", PREPROCESSING), ("tokenizer", TOKENIZER)):
        if not any((folder / name).is_file() for name in names):
            return f"has no {kind} ({' or '.join(names)})"
    return ""


def _pickled(folder: Path) -> bool:
    return any(folder.glob("*.bin"))


def _from_hub(name: str, revision: str | None) -> Path:
    try:
        cached = _snapshot(name, revision, local_files_only=True)
    except LocalEntryNotFoundError:
        cached = None
    except HFValidationError as failure:
        raise _not_found(name, "there is no such folder, and it is not the form of a hub id") from failure
    if cached is not None and not lacking(cached):
        return cached
    fetched = _fetch(name, revision)
    if not weights_of(fetched):
        raise ModelError(
            f"model {name} has no {WEIGHTS} at revision {revision or 'main'} (pickled weights can run code and are not "
            "read); choose a revision that has them (the hub's conversions are pull requests, refs/pr/N), or convert "
            f"it once where you trust it: AutoModel.from_pretrained({name!r}).save_pretrained(FOLDER)"
        )
    if lack := lacking(fetched):
        raise ModelError(f"model {name} {lack}")
    return fetched


def _fetch(name: str, revision: str | None) -> Path:
    try:
        # Asked first for its timeout: `snapshot_download` waits for ever where a network swallows packets.
        HfApi().model_info(name, revision=revision, timeout=TIMEOUT_S)
        return _snapshot(name, revision, local_files_only=False)
    except GatedRepoError as failure:
        raise _not_found(name, "its owner wants terms accepted on the hub first (then `hf auth login`)") from failure
    except RepositoryNotFoundError as failure:
        raise _not_found(name, "the hub has no such model, or it is private") from failure
    except RevisionNotFoundError as failure:
        raise _not_found(name, f"the hub has no revision {revision!r} of it") from failure
    except Exception as failure:  # The HTTP libraries of hub 0.x, 1.x and 2.x raise different trees of errors.
        raise _not_found(name, f"the hub cannot be reached ({type(failure).__name__})") from failure


def _snapshot(name: str, revision: str | None, *, local_files_only: bool) -> Path:
    folder = snapshot_download(
        name,
        revision=revision,
        local_files_only=local_files_only,
        allow_patterns=["*.json", "*.txt", "*.model", WEIGHTS, "model-*.safetensors"],
        ignore_patterns=["*/*"],
    )
    return Path(folder)


def _not_found(name: str, reason: str) -> ModelError:
    return ModelError(
        f"model {name} is not in the cache {constants.HF_HUB_CACHE} and cannot be fetched: {reason}; "
        "give the folder of a model on disk (--model PATH) or take the bundled one (--model demo)"
    )
