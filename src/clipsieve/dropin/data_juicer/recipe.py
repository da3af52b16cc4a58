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
    "dataset_path", "export_path", "export_type", "image_key", "keep_stats_in_res_ds", "np", "process",
    "skip_op_error", "text_keys",
)  # fmt: skip
_IDLE_KEYS = (
    "adaptive_batch_size", "audio_key", "audio_special_token", "auto", "auto_num", "cache_compress", "debug",
    "ds_cache_dir", "eoc_special_token", "executor_type", "export_in_parallel", "export_original_dataset",
    "fusion_strategy", "hpo_config", "image_special_token", "job_id", "keep_hashes_in_res_ds", "mapper_fusion",
    "op_fusion",
    "op_list_to_mine", "op_list_to_trace", "open_insight_mining", "open_monitor", "open_tracer", "percentiles",
    "project_name", "ray_address", "save_stats_in_one_file", "temp_dir", "trace_num", "turbo", "use_cache",
    "use_checkpoint", "video_key", "video_special_token", "work_dir",
)  # fmt: skip
"""Keys that change no result here."""

_FEWER = "data sets are not sampled; --limit N takes the first samples"
_REFUSED_KEYS = {
    "data_probe_algo": ("uniform", _FEWER),
    "data_probe_ratio": (1, _FEWER),
    "dataset": ([], "give a path or a glob as dataset_path"),
    "dataset_sample_ratio": (1, _FEWER),
    "export_aws_credentials": ({}, "write into a local folder, and upload that with a tool of its own"),
    "export_extra_args": ({}, "write by Clipsieve's own recipe, such as write: {parquet: folder/}"),
    "export_shard_size": (0, "write by Clipsieve's own recipe, write: {jsonl: folder/, samples_per_shard: 10000}"),
    "generated_dataset_config": (None, "give a path or a glob as dataset_path"),
    "image_bytes_key": ("image_bytes", "put the bytes into the column of the images, in place of the paths"),
    "load_dataset_kwargs": ({}, "give the path of the files to read as dataset_path"),
    "read_options": ({}, "give the path of the files to read as dataset_path"),
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

_WEIGHT = re.compile(r"^\s*[\d.]+\s|\s\d?\.\d+\s")
"""Several data sets are written there with their weights: ``0.5 one.jsonl 0.5 other.jsonl``, or those but for 1."""

_FORMATS = {".jsonl": "jsonl", ".parquet": "parquet"}
"""What lists of images can be written as."""


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
    columns = {"image": operators[0].image_key, "text": values.get("text_keys")}
    native = {
        "read": {"path": values["dataset_path"], "layout": "lists", "columns": columns},
        "model": operators[0].hf_clip,
        "precision": "fp32",
        "keep": [op.keep for op in operators],
        "write": _write(values),
        "on_error": "stop" if values.get("skip_op_error") is False else "drop-sample",
        "workers": values.get("np"),
        "device": "cpu" if all(op.device == "cpu" for op in operators) else None,
    }
    return {key: value for key, value in native.items() if value is not None}


def _operators(values: Mapping[str, Any]) -> tuple[list[ImagePairSimilarityFilter], list[str]]:
    """The operators of a recipe, and what is wrong with those that are none of Clipsieve's."""
    listed = [] if values.get("process") is None else values["process"]
    if not isinstance(listed, list):
        return [], ["process is a list of operators"]
    named = [pair for item in listed for pair in (item.items() if isinstance(item, Mapping) else [(item, None)])]
    if not named:
        return [], [f"process has no operators, so that nothing would be filtered; {OPERATOR} is one"]
    shared = {"image_key": values["image_key"]} if values.get("image_key") is not None else {}
    operators, problems = [], []
    for name, options in named:
        if name != OPERATOR:
            problems.append(_refusal(str(name)))
        elif not (options is None or isinstance(options, Mapping)):
            problems.append(f"{OPERATOR} takes a mapping of options, not {options!r}")
        else:
            try:
                said = {str(key): value for key, value in (options or {}).items()}
                operators.append(ImagePairSimilarityFilter(**{**({} if "images_key" in said else shared), **said}))
            except UsageError as failure:
                problems.append(str(failure))
    return operators, problems


def _refusal(name: str) -> str:
    if name in COUNTERPARTS:
        return f"operator {name} is not run; a recipe of Clipsieve's own has {COUNTERPARTS[name]}"
    near = difflib.get_close_matches(name, (OPERATOR, *COUNTERPARTS), n=1, cutoff=0.9)
    return f"operator {name} is not among Clipsieve's" + (f"; did you mean {near[0]}?" if near else f"; {OPERATOR} is")


def _key_problems(values: Mapping[str, Any]) -> Iterator[str]:
    paths = values.get("dataset_path")
    listed: list[Any] = paths if isinstance(paths, list) else [paths]
    if paths is None or paths in ("", []):
        yield "dataset_path is missing; give a path or a glob"
    elif not all(isinstance(path, str) and path for path in listed):
        yield f"dataset_path {paths!r} is neither a path nor a list of paths"
    elif any(_WEIGHT.search(path) and not Path(path).exists() for path in listed):
        yield f"dataset_path {paths!r}: weights are not supported; give one path, a list of paths or a glob"
    export, kind = values.get("export_path"), values.get("export_type")
    if export is not None and _suffix(export) not in _FORMATS:
        yield f"export_path {export!r} should end in {' or '.join(_FORMATS)}"
    elif kind is not None and kind not in _FORMATS.values():
        yield f"export_type {kind!r} is not {' or '.join(_FORMATS.values())}"
    elif kind is not None and export is not None and kind != _FORMATS[_suffix(export)]:
        yield f"export_type {kind!r} is not that of export_path {export!r}"
    for key in ("keep_stats_in_res_ds", "skip_op_error"):
        if not (values.get(key) is None or isinstance(values[key], bool)):
            yield f"{key} is true or false, not {values[key]!r}"
    workers = values.get("np")
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        yield f"np is a number of processes, 1 or more, not {workers!r}"
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
    path, kind = values.get("export_path"), values.get("export_type") or "jsonl"
    return {"format": kind if path is None else _FORMATS[_suffix(path)], "path": path, "scores": scores}


def _suffix(path: Any) -> str:
    return PurePath(str(path)).suffix
