"""Data-Juicer's pair filter as its users write it: on Hugging Face data sets, on plain samples, and in YAML."""

from __future__ import annotations

import inspect
import logging
import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import Dataset
from datasets.fingerprint import Hasher
from PIL import Image

import clipsieve
from clipsieve.dropin.data_juicer import ImagePairSimilarityFilter, to_recipe
from clipsieve.dropin.data_juicer import filter as filter_module
from clipsieve.dropin.data_juicer.recipe import COUNTERPARTS
from clipsieve.errors import ColumnError, RecipeError
from tests.fakes import image_bytes

STATS, STAT = "__dj__stats__", "image_pair_similarity"


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two red images that differ, a green one and a broken one; the test works in their folder."""
    for name, colour, seed in (("cat", "red", 0), ("img3", "red", 1), ("img5", "green", 0)):
        (tmp_path / f"{name}.jpg").write_bytes(image_bytes(colour, seed=seed))
    (tmp_path / "broken.jpg").write_bytes(image_bytes()[:40])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(**options: Any) -> ImagePairSimilarityFilter:
    return ImagePairSimilarityFilter(hf_clip="demo", **options)


def sample(*images: Any, **stats: Any) -> dict[str, Any]:
    return {"text": "a pair", "images": list(images), STATS: stats}


def score(*images: Any) -> float:
    """The value of the native scorer."""
    return float(clipsieve.PairSimilarity(model="demo")([list(images)])["pair_similarity"][0])


ALIKE, UNLIKE = ("cat.jpg", "img3.jpg"), ("cat.jpg", "img5.jpg")


def test_the_described_program_runs_as_written() -> None:
    ds = Dataset.from_list([
        {"text": "image pair 1", "images": ["cat.jpg", "img3.jpg"]},
        {"text": "image pair 2", "images": ["cat.jpg", "img5.jpg"]},
    ])  # fmt: skip
    ds = ds.add_column("__dj__stats__", [{}] * ds.num_rows)
    op = ImagePairSimilarityFilter(hf_clip="demo", any_or_all="any", min_score=0.85, max_score=1)
    ds = ds.map(op.compute_stats, num_proc=1, with_rank=True).filter(op.process, num_proc=1)

    assert ds.to_list() == [{"text": "image pair 1", "images": ["cat.jpg", "img3.jpg"], STATS: {STAT: [score(*ALIKE)]}}]


def test_parameters_and_defaults_are_the_described_ones() -> None:
    parameters = inspect.signature(ImagePairSimilarityFilter).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if parameter.kind.name[:3] != "VAR"}
    assert list(defaults.items()) == [
        ("hf_clip", "openai/clip-vit-base-patch32"),
        ("trust_remote_code", False),
        ("min_score", 0.1),
        ("max_score", 1.0),
        ("any_or_all", "any"),
    ]
    assert [p.kind.name for p in parameters.values()][-2:] == ["VAR_POSITIONAL", "VAR_KEYWORD"]
    for method, expected in (("compute_stats", "(self, sample, rank, context)"), ("process", "(self, sample, rank)")):
        names = inspect.signature(getattr(ImagePairSimilarityFilter, method)).parameters
        assert f"({', '.join(names)})" == expected
    assert (ImagePairSimilarityFilter.type, ImagePairSimilarityFilter.tags) == ("filter", ("cpu", "hf", "image"))


def test_the_score_is_the_cosine_of_the_models_own_features() -> None:
    import torch
    from transformers import AutoModel, AutoProcessor

    from clipsieve.encoders.hub import DEMO

    model, processor = AutoModel.from_pretrained(DEMO), AutoProcessor.from_pretrained(DEMO)
    pixels = processor.image_processor([Image.open(path) for path in UNLIKE], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = model.get_image_features(pixels)
    one, other = getattr(features, "pooler_output", features)

    found = make().compute_stats(sample(*UNLIKE))[STATS][STAT]

    assert found == pytest.approx([torch.cosine_similarity(one, other, dim=0).item()], abs=1e-3)


@pytest.mark.parametrize(
    "wrong", [{"min_score": -0.1}, {"max_score": 1.1}, {"min_score": "0.1"}, {"max_score": np.nan}]
)
def test_scores_lie_in_the_closed_unit_interval(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is a number from 0 to 1, not"):
        make(**wrong)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_score": 0.9, "max_score": 0.2}, "min_score 0.9 is above max_score 0.2"),
        ({"any_or_all": "some"}, r'^Keep strategy \[some\] is not supported. Can only be one of \["any", "all"\].$'),
        ({"trust_remote_code": True}, "never runs a model's own code; leave it out"),
        ({"min_scor": 0.2}, "unknown option 'min_scor'; did you mean 'min_score'"),
        ({"reversed_range": True}, "reversed_range is not supported"),
        ({"accelerator": "tpu"}, "accelerator is cuda or cpu, not 'tpu'"),
        ({"hf_clip": None}, "hf_clip is a hub id, a folder or demo, not None"),
        ({"image_key": None}, "image_key is the name of a column, not None"),
        ({"images_key": 5}, "images_key is the name of a column, not 5"),
        ({"image_key": "a", "images_key": "b"}, "image_key and images_key both name the column"),
        ({"min_closed_interval": "false"}, "min_closed_interval is true or false, not 'false'"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ImagePairSimilarityFilter(**{"hf_clip": "demo", **options})


def test_positions_after_the_last_are_refused() -> None:
    with pytest.raises(ValueError, match="'images' has no meaning after any_or_all"):
        ImagePairSimilarityFilter("demo", False, 0.1, 1.0, "any", "images")


def test_options_of_every_operator_are_accepted_and_the_image_key_is_followed() -> None:
    op = make(text_key="caption", image_key="pair", num_proc=4, batch_size=10, accelerator="cpu", turbo=True)

    scored = op.compute_stats({"caption": "a", "pair": list(ALIKE), STATS: {}})

    assert scored[STATS] == {STAT: [score(*ALIKE)]}
    assert op.device == "cpu"


@pytest.mark.parametrize("images", [[], ["cat.jpg"], ["cat.jpg", "cat.jpg"], ["cat.jpg", "img3.jpg", "img5.jpg"], None])
def test_each_sample_must_include_two_images(images: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"^Each sample must include two images\."):
        make().compute_stats({"images": images, STATS: {}})
    with pytest.raises(ValueError, match=r"^Each sample must include two images\. Row 1 of the batch: Found"):
        make().compute_stats({"images": [list(ALIKE), images], STATS: [{}, {}]})


@pytest.mark.parametrize("images", ["ab", b"ab", {"bytes": b"", "path": "cat.jpg"}, 5, np.zeros((2, 4, 3), np.uint8)])
def test_one_image_is_no_list_of_two(images: Any) -> None:
    with pytest.raises(ValueError, match=r"^Each sample must include two images\. Found"):
        make().compute_stats({"images": images, STATS: {}})


def test_each_process_loads_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    model = clipsieve.load_encoder("demo")
    monkeypatch.setattr("clipsieve.encoders.load", lambda name, **_: loaded.append(name) or model)
    filter_module._encoder.cache_clear()
    for _ in range(3):
        make().compute_stats(sample(*ALIKE))
    assert loaded == ["demo"]
    monkeypatch.setattr("os.getpid", lambda: -1)  # as in a process that was forked
    make().compute_stats(sample(*ALIKE))
    assert loaded == ["demo", "demo"]
    filter_module._encoder.cache_clear()


def test_each_sample_must_have_the_columns() -> None:
    with pytest.raises(ValueError, match="Each sample must include two images"):
        make().compute_stats({STATS: {}})
    with pytest.raises(ColumnError, match="add it with ds"):
        make().compute_stats({"images": list(ALIKE)})
    with pytest.raises(ValueError, match="run compute_stats first"):
        make().process(sample(*ALIKE))


@pytest.mark.parametrize(
    ("options", "values", "stays"),
    [
        ({"min_score": 0.5}, [0.5], True),
        ({"min_score": 0.5}, [0.49999], False),
        ({"max_score": 0.5}, [0.5], True),
        ({"max_score": 0.5}, [0.50001], False),
        ({"min_score": 0.5, "min_closed_interval": False}, [0.5], False),
        ({"max_score": 0.5, "max_closed_interval": False}, [0.5], False),
        ({"min_score": 0, "max_score": 1}, [-0.2], False),
        ({"min_score": 1e-05}, [0.00001], True),
        ({}, [np.nan], False),
        ({"min_score": 0.5, "any_or_all": "any"}, [0.2, 0.6], True),
        ({"min_score": 0.5, "any_or_all": "all"}, [0.2, 0.6], False),
        ({}, [], True),
    ],
)
def test_the_decision(options: dict[str, Any], values: list[float], stays: bool) -> None:
    op = make(**options)
    assert op.process({STATS: {STAT: values}}) is stays
    assert op.process({STATS: [{STAT: np.array(values)}, {STAT: [0.3]}]})[0] is stays


def test_a_score_that_is_there_is_not_computed_again() -> None:
    known = {"images": ["nowhere.jpg"], STATS: {STAT: [0.5]}}
    assert make().compute_stats(known) is known
    assert known == {"images": ["nowhere.jpg"], STATS: {STAT: [0.5]}}


def test_other_stats_stay_and_rows_of_a_batch_that_have_a_score_keep_it() -> None:
    batch = {
        "images": [["nowhere.jpg"], list(ALIKE), list(UNLIKE)],
        STATS: [{STAT: [0.5], "words": 1}, {STAT: None, "words": 2}, None],
    }
    assert make().compute_stats(batch)[STATS] == [
        {STAT: [0.5], "words": 1},
        {STAT: [score(*ALIKE)], "words": 2},
        {STAT: [score(*UNLIKE)]},
    ]


def test_an_empty_batch_is_one() -> None:
    assert make().compute_stats({"images": [], STATS: []}) == {"images": [], STATS: []}
    assert make().process({STATS: []}) == []


@pytest.mark.parametrize("bad", ["broken.jpg", "nowhere.jpg", None])
def test_an_image_that_cannot_be_read_scores_nan_and_costs_its_neighbours_nothing(
    bad: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    op = make()
    with caplog.at_level(logging.WARNING):
        batch = op.compute_stats({"images": [list(ALIKE), ["cat.jpg", bad], list(ALIKE)], STATS: [{}, {}, {}]})

    values = [value for stats in batch[STATS] for value in stats[STAT]]
    assert values == pytest.approx([score(*ALIKE), np.nan, score(*ALIKE)], nan_ok=True)
    assert op.process(batch) == [True, False, True]
    assert [record.message.partition(":")[0] for record in caplog.records] == [bad or "an image"]


def test_images_may_be_paths_bytes_pillow_images_and_arrays() -> None:
    one, other = Image.open("cat.jpg"), Image.open("img3.jpg")
    for pair in (
        [Path(name).read_bytes() for name in ALIKE],
        [one, other],
        [np.asarray(one), np.asarray(other)],
        [{"bytes": None, "path": name} for name in ALIKE],
    ):
        assert make().compute_stats(sample(*pair))[STATS][STAT] == [score(*ALIKE)]
    with pytest.raises(ValueError, match="Found the same one twice"):
        make().compute_stats(sample(np.asarray(one), np.asarray(one)))


def pairs(n: int = 6) -> Dataset:
    ds = Dataset.from_list([{"text": str(i), "images": list(ALIKE if i % 2 else UNLIKE)} for i in range(n)])
    return ds.add_column(STATS, [{}] * ds.num_rows)


@pytest.mark.parametrize("num_proc", [None, 2])
def test_rows_and_batches_give_the_same(num_proc: int | None) -> None:
    op = make(min_score=0.85)
    op.compute_stats(sample(*ALIKE))  # the model has run in this process before workers are forked from it

    by_row = pairs().map(op.compute_stats, num_proc=num_proc, with_rank=True).filter(op.process, num_proc=num_proc)
    by_batch = pairs().map(op.compute_stats, batched=True, batch_size=2, num_proc=num_proc)
    by_batch = by_batch.filter(op.process, batched=True, num_proc=num_proc)

    assert by_row.to_list() == by_batch.to_list()
    assert by_row["text"][:] == ["1", "3", "5"]
    assert by_row.features[STATS] == {STAT: datasets.List(datasets.Value("float64"))}


def test_images_that_datasets_decodes() -> None:
    ds = pairs().cast_column("images", datasets.List(datasets.Image()))
    assert make().compute_stats(ds[1])[STATS] == {STAT: [score(*ALIKE)]}
    assert ds.map(make().compute_stats, batched=True)[STATS][:] == pairs().map(make().compute_stats)[STATS][:]


def test_a_data_set_without_rows_and_one_in_numpys_form() -> None:
    op = make(min_score=0.85)
    assert pairs().select([]).map(op.compute_stats, batched=True).filter(op.process, batched=True).num_rows == 0
    assert pairs().with_format("numpy").map(op.compute_stats).filter(op.process).num_rows == 3


def test_an_operator_is_pickled_without_its_model_and_its_results_are_cached(tmp_path: Path) -> None:
    op = make()
    before = Hasher.hash(op.compute_stats)
    op.compute_stats(sample(*ALIKE))
    assert len(pickle.dumps(op)) < 1000
    assert Hasher.hash(op.compute_stats) == before == Hasher.hash(pickle.loads(pickle.dumps(make())).compute_stats)
    assert Hasher.hash(make(min_score=0.2).process) != Hasher.hash(op.process)

    pairs().save_to_disk(str(tmp_path / "saved"))
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    assert saved.map(op.compute_stats).cache_files == saved.map(make().compute_stats).cache_files != []


YAML = """\
project_name: pairs
dataset_path: data.jsonl
export_path: out/kept.jsonl
np: 2
text_keys: text
process:
  - image_pair_similarity_filter:
      hf_clip: demo
      min_score: 0.85
      max_score: 1.0
      any_or_all: any
"""


def test_its_yaml_becomes_a_recipe() -> None:
    Path("dj.yaml").write_text(YAML)
    said: list[str] = []

    recipe = to_recipe("dj.yaml", said.append)

    assert recipe == clipsieve.Recipe.build(
        {
            "read": {"path": "data.jsonl", "layout": "lists", "columns": {"image": "images", "text": "text"}},
            "model": "demo",
            "precision": "fp32",
            "keep": "0.85 <= any(pair_similarity) <= 1.0",
            "write": {"jsonl": "out/kept.jsonl"},
            "on_error": "drop-sample",
            "workers": 2,
        }
    )
    assert said == ["Data-Juicer recipe: ignored, since no result depends on it: project_name"]


def recipe(*process: Any, **keys: Any) -> clipsieve.Recipe:
    return to_recipe({"dataset_path": "data.jsonl", "process": list(process), **keys})


def test_a_bare_name_takes_the_defaults_and_several_operators_are_several_rules() -> None:
    assert [k.rule for k in recipe("image_pair_similarity_filter").keep] == ["0.1 <= any(pair_similarity) <= 1.0"]
    both = recipe(
        "image_pair_similarity_filter",
        {"image_pair_similarity_filter": {"max_score": 0.5, "any_or_all": "all", "accelerator": "cuda"}},
    )
    assert [k.rule for k in both.keep] == ["0.1 <= any(pair_similarity) <= 1.0", "0.1 <= all(pair_similarity) <= 0.5"]
    assert both.model == "openai/clip-vit-base-patch32"
    assert both.write == clipsieve.Recipe.build({"read": "x", "write": "jsonl"}).write


def test_keys_that_have_a_counterpart_are_followed() -> None:
    made = recipe(
        {"image_pair_similarity_filter": {"accelerator": "cpu"}},
        image_key="pair", keep_stats_in_res_ds=True, skip_op_error=False, export_path="a.parquet",
    )  # fmt: skip
    assert made.read.columns.image == "pair"
    assert made.write is not None
    assert (made.write.format, made.write.path, made.write.scores) == ("parquet", "a.parquet", True)
    assert (made.on_error, made.device) == ("stop", "cpu")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"expot_path": "x"}, "unknown key 'expot_path'; did you mean 'export_path'?"),
        ({"export_path": "out.json"}, "export_path 'out.json' should end in .jsonl or .parquet"),
        ({"export_path": "out/"}, "export_path 'out/' should end in .jsonl or .parquet"),
        ({"export_shard_size": 10}, "export_shard_size is not supported; write by Clipsieve's own recipe"),
        ({"suffixes": [".txt"]}, "suffixes is not supported; give a glob as dataset_path"),
        ({"dataset_path": "0.5 a.jsonl 0.5 b.jsonl"}, "weights are not supported; give one path, a list of"),
        ({"dataset_path": "a.jsonl 0.3 b.jsonl"}, "weights are not supported"),
        ({"dataset_path": None}, "dataset_path is missing"),
        ({"dataset_path": ["a.jsonl", 5]}, "dataset_path ['a.jsonl', 5] is neither a path nor a list of paths"),
        ({"export_path": "out.csv"}, "export_path 'out.csv' should end in .jsonl or .parquet"),
        ({"export_type": "json"}, "export_type 'json' is not jsonl or parquet"),
        ({"export_type": "jsonl", "export_path": "a.parquet"}, "'jsonl' is not that of export_path 'a.parquet'"),
        ({"export_extra_args": {"a": 1}}, "export_extra_args is not supported; write by Clipsieve's own recipe"),
        ({"export_aws_credentials": {"a": 1}}, "export_aws_credentials is not supported; write into a local folder"),
        ({"load_dataset_kwargs": {"split": "a"}}, "load_dataset_kwargs is not supported; give the path of the files"),
        ({"read_options": {"a": 1}}, "read_options is not supported; give the path of the files"),
        ({"dataset_sample_ratio": 0.5}, "dataset_sample_ratio is not supported; data sets are not sampled"),
        ({"image_bytes_key": "data"}, "image_bytes_key is not supported; put the bytes into the column of the images"),
        ({"image_key": 5}, "image_key is the name of a column, not 5"),
        ({"skip_op_error": "false"}, "skip_op_error is true or false, not 'false'"),
        ({"keep_stats_in_res_ds": "no"}, "keep_stats_in_res_ds is true or false, not 'no'"),
        ({"np": 0}, "np is a number of processes, 1 or more, not 0"),
        ({"np": "2"}, "np is a number of processes, 1 or more, not '2'"),
        ({"process": []}, "process has no operators, so that nothing would be filtered"),
        ({"process": None}, "process has no operators, so that nothing would be filtered"),
        ({"process": [{"image_pair_similarity_filter": 0}]}, "takes a mapping of options, not 0"),
        ({"process": [{"image_pair_similarity_filter": ""}]}, "takes a mapping of options, not ''"),
        ({"process": "x"}, "process is a list of operators"),
        ({"process": [{"image_pair_similarity_filter": 3}]}, "takes a mapping of options, not 3"),
        ({"process": [{"image_pair_similarity_filter": {"trust_remote_code": True}}]}, "never runs a model's own code"),
        (
            {"process": [{"image_pair_similarity_filter": {"hf_clip": name}} for name in "ab"]},
            "one model a recipe, not a, b; make it two recipes",
        ),
    ],
)
def test_keys_that_would_change_results_are_refused_by_name(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as failure:
        to_recipe({"dataset_path": "data.jsonl", "process": ["image_pair_similarity_filter"], **keys})
    assert says in str(failure.value)
    assert "\n" not in str(failure.value)


def test_keys_at_the_value_that_does_nothing_are_accepted() -> None:
    idle = {
        "export_shard_size": 0, "suffixes": [], "dataset": None, "use_cache": True, "mapper_fusion": True,
        "export_extra_args": {}, "export_aws_credentials": None, "load_dataset_kwargs": {}, "read_options": {},
        "dataset_sample_ratio": 1.0, "image_bytes_key": "image_bytes",
    }  # fmt: skip
    assert recipe("image_pair_similarity_filter", **idle) == recipe("image_pair_similarity_filter")


def test_several_data_sets_are_listed_and_the_type_of_the_export_may_be_said() -> None:
    made = recipe("image_pair_similarity_filter", dataset_path=["a.jsonl", "b.jsonl"], export_type="parquet")
    assert made.read.path == ("a.jsonl", "b.jsonl")
    assert made.write is not None
    assert made.write.format == "parquet"


def test_all_operators_that_are_not_clipsieves_are_named_at_once_with_what_it_has_instead() -> None:
    with pytest.raises(RecipeError) as failure:
        recipe(
            {"image_aspect_ratio_filter": {"min_ratio": 0.5}},
            "image_deduplicator",
            {"words_num_filter": None},
            "image_pair_similarty_filter",
            "image_nsfw_filter",
        )
    assert str(failure.value) == (
        "Data-Juicer recipe: "
        "operator image_aspect_ratio_filter is not run; a recipe of Clipsieve's own has a rule on aspect_ratio; "
        "operator image_deduplicator is not run; a recipe of Clipsieve's own has dedup: exact, "
        "or {method: perceptual, threshold: 0}; "
        "operator words_num_filter is not run; a recipe of Clipsieve's own has a rule on words; "
        "operator image_pair_similarty_filter is not among Clipsieve's; did you mean image_pair_similarity_filter?; "
        "operator image_nsfw_filter is not among Clipsieve's; image_pair_similarity_filter is"
    )


def test_what_is_named_as_clipsieves_own_is() -> None:
    from clipsieve.scorers import COLUMNS

    for told in COUNTERPARTS.values():
        words = set(told.replace(",", " ").split())
        assert words & set(COLUMNS) or told.startswith("dedup: exact")
