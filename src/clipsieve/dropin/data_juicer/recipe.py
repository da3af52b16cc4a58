"""Data-Juicer's YAML as a recipe of Clipsieve's own; what it cannot say is refused, all in one error."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from clipsieve.dropin.data_juicer.filter import OPERATOR, ImagePairSimilarityFilter, hint
from clipsieve.errors import RecipeError, UsageError
from clipsieve.recipe import Recipe, load_yaml

log = logging.getLogger("clipsieve")

_USED_KEYS = (
    "dataset_path", "export_path", "image_key", "keep_stats_in_res_ds", "np", "process", "skip_op_error", "text_keys",
)  # fmt: skip
_IDLE_KEYS = (
    "adaptive_batch_size", "audio_key", "audio_special_token", "auto", "auto_num", "cache_compress", "debug",
    "ds_cache_dir", "eoc_special_token", "executor_type", "export_in_parallel", "export_original_dataset",
    "fusion_strategy", "hpo_config", "image_special_token", "job_id", "keep_hashes_in_res_ds", "op_fusion",
    "op_list_to_mine", "op_list_to_trace", "open_insight_mining", "open_monitor", "open_tracer", "percentiles",
    "project_name", "ray_address", "save_stats_in_one_file", "temp_dir", "trace_num", "turbo", "use_cache",
    "use_checkpoint", "video_key", "video_special_token", "work_dir",
)  # fmt: skip
"""Keys that change no result here."""

_REFUSED_KEYS = {
    "data_probe_algo": ("uniform", "data sets are not sampled; --limit N takes the first samples"),
    "data_probe_ratio": (1, "data sets are not sampled; --limit N takes the first samples"),
    "dataset": ([], "give a path or a glob as dataset_path"),
    "export_shard_size": (0, "write by Clipsieve's own recipe, write: {jsonl: folder/, samples_per_shard: 10000}"),
    "generated_dataset_config": (None, "give a path or a glob as dataset_path"),
    "suffixes": ([], "give a glob as dataset_path, such as data/*.jsonl"),
    "validators": ([], "rows that cannot be read are in the ledger"),
}
"""Keys that would change results, with the value that does nothing and the way to go on."""

COUNTERPARTS = {
    "clip_similarity_filter": "a rule on clip_score",
    "image_aspect_ratio_filter": "a rule on aspect_ratio",
    "image_deduplicator": "dedup: exact, or {method: perceptual, threshold: 0}",
    "image_shape_filter": "rules on width and height",
    "image_size_filter": "a rule on file_bytes",
    "image_text_matching_filter": "a rule on clip_score, by another model",
    "image_text_similarity_filter": "a rule on clip_score",
    "ray_image_deduplicator": "dedup: exact, or {method: perceptual, threshold: 0}",
    "topk_specified_field_selector": "a rule such as clip_score in top 30%",
    "word_num_filter": "a rule on words",
    "words_num_filter": "a rule on words",
}
"""Operators of Data-Juicer that Clipsieve has in its own words."""

_WEIGHT = re.compile(r"\s*[\d.]+\s")
"""Several data sets are written there with their weights: ``0.5 one.jsonl 0.5 other.jsonl``."""

_FORMATS = {".jsonl": "jsonl", ".parquet": "parquet", ".csv": "csv"}


def recipe_values(path: str | Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The values of the recipe in a YAML file, of Clipsieve's or of Data-Juicer's own kind, which has ``process``."""
    values = load_yaml(path)
    return translated(values, say) if "process" in values else values


def to_recipe(values: Mapping[str, Any] | str | Path, say: Callable[[str], None] = log.info) -> Recipe:
    """A recipe of Data-Juicer's (its values, or the path of its YAML) as Clipsieve's own.

    ``say`` is told what is ignored. Raises ``RecipeError`` with everything that cannot be done.
    """
    return Recipe.build(translated(values if isinstance(values, Mapping) else load_yaml(values), say))


def translated(values: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The values of ``to_recipe``, before they are checked as a recipe of Clipsieve's and with flags over them."""
    operators, refused = _operators(values)
    problems = [*_key_problems(values), *refused]
    for said, names in (("model", {op.hf_clip for op in operators}), ("image_key", {op.image_key for op in operators})):
        if len(names) > 1:
            problems.append(f"one {said} a recipe, not {', '.join(sorted(map(str, names)))}; make it two recipes")
    if problems:
        raise RecipeError(f"Data-Juicer recipe: {'; '.join(problems)}")
    if idle := [key for key in values if key in _IDLE_KEYS or key in _REFUSED_KEYS]:
        say(f"Data-Juicer recipe: ignored, since no result depends on it: {', '.join(idle)}")
    columns = {
        "image": operators[0].image_key if operators else values.get("image_key"),
        "text": values.get("text_keys"),
    }
    native = {
        "read": {"path": values["dataset_path"], "layout": "lists", "columns": columns},
        "model": operators[0].hf_clip if operators else None,
        "precision": "fp32" if operators else None,
        "keep": [op.keep for op in operators],
        "write": _write(values),
        "on_error": "stop" if values.get("skip_op_error") is False else "drop-sample",
        "workers": values.get("np"),
        "device": "cpu" if operators and all(op.device == "cpu" for op in operators) else None,
    }
    return {key: value for key, value in native.items() if value is not None}


def _operators(values: Mapping[str, Any]) -> tuple[list[ImagePairSimilarityFilter], list[str]]:
    """The operators of a recipe, and what is wrong with those that are none of Clipsieve's."""
    listed = values.get("process") or []
    if not isinstance(listed, list):
        return [], ["process is a list of operators"]
    named = [pair for item in listed for pair in (item.items() if isinstance(item, Mapping) else [(item, None)])]
    shared = {"image_key": values["image_key"]} if values.get("image_key") else {}
    operators, problems = [], []
    for name, options in named:
        if name != OPERATOR:
            problems.append(_refusal(str(name)))
        elif not isinstance(options or {}, Mapping):
            problems.append(f"{OPERATOR} takes a mapping of options, not {options!r}")
        else:
            try:
                said = {str(key): value for key, value in (options or {}).items()}
                operators.append(ImagePairSimilarityFilter(**{**shared, **said}))
            except UsageError as failure:
                problems.append(str(failure))
    return operators, problems


def _refusal(name: str) -> str:
    if name in COUNTERPARTS:
        return f"operator {name} is not run; a recipe of Clipsieve's own has {COUNTERPARTS[name]}"
    near = difflib.get_close_matches(name, (OPERATOR, *COUNTERPARTS), n=1, cutoff=0.9)
    return f"operator {name} is not among Clipsieve's" + (f"; did you mean {near[0]}?" if near else f"; {OPERATOR} is")


def _key_problems(values: Mapping[str, Any]) -> Iterator[str]:
    path = values.get("dataset_path")
    if not isinstance(path, str) or not path:
        yield "dataset_path is missing; give a path or a glob"
    elif _WEIGHT.match(path):
        yield f"dataset_path {path!r}: weights are not supported; give one path or a glob"
    export = values.get("export_path")
    if export is not None and _suffix(export) not in _FORMATS:
        yield f"export_path {export!r} should end in {', '.join(_FORMATS)}"
    for key, value in values.items():
        if key in _REFUSED_KEYS:
            idle, instead = _REFUSED_KEYS[key]
            if value is not None and value != idle:
                yield f"{key} is not supported; {instead}"
        elif key not in (*_USED_KEYS, *_IDLE_KEYS):
            known = (*_USED_KEYS, *_IDLE_KEYS, *_REFUSED_KEYS)
            yield f"unknown key {key!r}; {hint(str(key), known, _USED_KEYS)}"


def _write(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without a path of its own the output goes into the run folder."""
    scores = bool(values.get("keep_stats_in_res_ds"))
    path = values.get("export_path")
    return {"format": _FORMATS[_suffix(path)] if path else "jsonl", "path": path, "scores": scores}


def _suffix(path: Any) -> str:
    return PurePath(str(path)).suffix
