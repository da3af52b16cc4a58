"""NeMo Curator's interleaved filters on a batch by itself: what stays, in which order, with which positions."""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
import tarfile
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

import clipsieve.encoders
from clipsieve.dropin import nemo_curator as nemo
from clipsieve.dropin.nemo_curator import (
    BaseInterleavedFilterStage,
    InterleavedAspectRatioFilterStage,
    InterleavedBatch,
    InterleavedBlurFilterStage,
    InterleavedCLIPScoreFilterStage,
    InterleavedImageToTextRatioFilterStage,
    InterleavedQRCodeFilterStage,
    Resources,
)
from clipsieve.dropin.nemo_curator.fused import encoder
from clipsieve.errors import UsageError
from tests.dropin.documents import (
    BLUE,
    FLAT,
    GREEN,
    RED,
    at,
    batch,
    encoded,
    image,
    metadata,
    pictures,
    places,
    text,
    with_codes,
)
from tests.fakes import image_bytes

REQUIRED = inspect.Parameter.empty

SIGNATURES: dict[str, dict[str, Any]] = {
    "InterleavedBlurFilterStage": {
        "drop_invalid_rows": True, "name": "interleaved_blur_filter", "score_threshold": 100.0,
    },
    "InterleavedQRCodeFilterStage": {
        "drop_invalid_rows": True, "name": "interleaved_qrcode_filter", "score_threshold": 0.05, "aggregate": "largest",
    },
    "InterleavedImageToTextRatioFilterStage": {
        "drop_invalid_rows": True, "name": "interleaved_image_to_text_ratio_filter", "min_ratio": 0.0,
        "max_ratio": math.inf,
    },
    "InterleavedCLIPScoreFilterStage": {
        "drop_invalid_rows": True, "name": "interleaved_clip_score_filter", "model_dir": None, "min_score": 0.15,
        "resources": Resources(gpu_memory_gb=20.0),
    },
    "InterleavedAspectRatioFilterStage": {
        "drop_invalid_rows": True, "name": "interleaved_aspect_ratio_filter", "min_aspect_ratio": 1.0,
        "max_aspect_ratio": 2.0,
    },
    "InterleavedParquetReader": {
        "file_paths": REQUIRED, "files_per_partition": None, "blocksize": None, "fields": None, "max_batch_bytes": None,
        "read_kwargs": {}, "schema": None, "schema_overrides": None, "name": "interleaved_parquet_reader",
    },
    "InterleavedWebdatasetReader": {
        "file_paths": REQUIRED, "files_per_partition": None, "blocksize": None, "max_batch_bytes": None,
        "read_kwargs": {}, "materialize_on_read": False, "json_extensions": None, "image_extensions": None,
        "sample_id_field": None, "texts_field": "texts", "images_field": "images", "image_member_field": None,
        "fields": None, "name": "interleaved_webdataset_reader",
    },
    "InterleavedParquetWriterStage": {
        "path": "out", "materialize_on_write": True, "name": "interleaved_parquet_writer", "mode": "ignore",
        "on_materialize_error": "error", "output_dir": "out",
    },
    "InterleavedWebdatasetWriterStage": {
        "path": "out", "materialize_on_write": True, "name": "interleaved_webdataset_writer", "mode": "ignore",
        "on_materialize_error": "error", "output_dir": "out",
    },
    "Resources": {"cpus": 1.0, "gpu_memory_gb": 0.0, "gpus": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters_and_defaults_are_those_that_are_published(name: str) -> None:
    made = getattr(nemo, name)
    expected = SIGNATURES[name]
    assert list(inspect.signature(made).parameters) == list(expected)
    given = {"file_paths": "a"} if "file_paths" in expected else {"path": "out"} if "path" in expected else {}
    stage = made(**given)
    found = {key: getattr(stage, key) for key, default in expected.items() if default is not REQUIRED}
    assert found == {key: default for key, default in expected.items() if default is not REQUIRED}
    if name != "Resources":
        assert (stage.inputs()[1], stage.outputs()) == ([], (["data"], []))


def test_an_image_goes_with_its_row_and_positions_are_counted_anew() -> None:
    stays = InterleavedBlurFilterStage().process(
        batch(
            metadata("a", url="x"),
            image("a", 0, FLAT),
            text("a", 1),
            image("a", 2),
            metadata("b", url="y"),
            image("b", 0, FLAT),
        )
    )
    assert places(stays.data) == [("a", -1, "metadata"), ("a", 0, "text"), ("a", 1, "image")]
    assert stays.data["url"].to_pylist() == ["x", None, None]  # and document b has nothing left but metadata
    assert (stays.task_id, stays.dataset_name) == ("t", "d")


def test_rows_need_not_be_sorted_and_come_out_sorted() -> None:
    stays = InterleavedBlurFilterStage().process(
        batch(image("b", 1, GREEN), text("a", 1), image("b", 0, FLAT), metadata("a"), image("a", 0), text("b", 2))
    )
    assert places(stays.data) == [
        ("a", -1, "metadata"), ("a", 0, "image"), ("a", 1, "text"), ("b", 0, "image"), ("b", 1, "text"),
    ]  # fmt: skip


INVALID = (
    ("a", 0, "video", {}),
    metadata("a", 3),
    text("a", -1),
    image("a", -2),
    ("a", 4, "table", {}),
    text("a", 7),
    metadata("b", 0),
)


def test_invalid_rows_go_and_other_rows_of_theirs_stay() -> None:
    stays = InterleavedBlurFilterStage().process(batch(*INVALID))
    assert places(stays.data) == [("a", 0, "table"), ("a", 1, "text")]


def test_invalid_rows_can_stay_but_metadata_by_itself_cannot() -> None:
    stays = InterleavedBlurFilterStage(drop_invalid_rows=False).process(batch(*INVALID))
    assert {place[0] for place in places(stays.data)} == {"a"}
    assert stays.num_items == 6


def test_an_empty_batch_is_returned_as_it_is() -> None:
    empty = batch()
    assert InterleavedBlurFilterStage().process(empty) is empty


def test_a_data_frame_comes_back_as_one() -> None:
    frame = batch(image("a", 0), image("a", 1, FLAT)).to_pandas()
    stays = InterleavedBlurFilterStage().process(InterleavedBatch(data=frame)).data
    assert isinstance(stays, pd.DataFrame)
    assert stays["binary_content"].tolist() == [RED]


def test_the_best_of_several_texts_counts() -> None:
    rows = [text("a", 0, "green"), image("a", 1), text("a", 2, "red")]
    assert pictures(InterleavedCLIPScoreFilterStage(model_dir="demo", min_score=0.4).process(batch(*rows)).data) == [
        RED
    ]
    assert (
        pictures(InterleavedCLIPScoreFilterStage(model_dir="demo", min_score=0.4).process(batch(*rows[:2])).data) == []
    )


def test_an_image_without_a_text_that_says_something_goes() -> None:
    rows = [image("a", 0), text("b", 0, "  "), image("b", 1), text("c", 0, None), image("c", 1)]
    stays = InterleavedCLIPScoreFilterStage(model_dir="demo", min_score=-1.0).process(batch(*rows))
    assert places(stays.data) == [("b", 0, "text"), ("c", 0, "text")]


def test_texts_beyond_the_context_of_the_model_are_scored() -> None:
    stage = InterleavedCLIPScoreFilterStage(model_dir="demo", min_score=-1.0)
    assert pictures(stage.process(batch(text("a", 0, "red star " * 200), image("a", 1))).data) == [RED]


def test_a_threshold_itself_stays() -> None:
    assert (
        len(pictures(InterleavedAspectRatioFilterStage(max_aspect_ratio=64 / 48).process(batch(image("a", 0))).data))
        == 1
    )
    assert (
        len(pictures(InterleavedAspectRatioFilterStage(max_aspect_ratio=1.3).process(batch(image("a", 0))).data)) == 0
    )


def test_the_largest_code_counts_or_all_of_them() -> None:
    two = with_codes(105, 105)  # 9.2 % of the page each
    rows = batch(image("a", 0, two))
    assert pictures(InterleavedQRCodeFilterStage(score_threshold=0.12).process(rows).data) == [two]
    assert pictures(InterleavedQRCodeFilterStage(score_threshold=0.12, aggregate="sum").process(rows).data) == []


def test_the_ratio_drops_documents_and_counts_images_that_are_broken() -> None:
    rows = [text("a", 0, "one two"), image("a", 1), image("b", 0), image("b", 1, b"broken"), text("b", 2, "one")]
    stays = InterleavedImageToTextRatioFilterStage(max_ratio=1.0).process(batch(*rows))
    assert places(stays.data) == [("a", 0, "text"), ("a", 1, "image")]
    assert InterleavedImageToTextRatioFilterStage().process(batch(*rows)).num_items == 5


def test_missing_and_broken_images_go_without_their_neighbours(tmp_path: Path) -> None:
    rows = [image("a", 0, b"broken"), at("a", 1, path=tmp_path / "nowhere.png"), image("a", 2, None), image("a", 3)]
    assert pictures(InterleavedBlurFilterStage().process(batch(*rows)).data) == [RED]


def test_an_image_by_url_is_not_fetched() -> None:
    assert InterleavedBlurFilterStage().process(batch(at("a", 0, path="https://example.org/a.png"))).num_items == 0


def test_a_frame_and_a_stretch_of_bytes_are_found(tmp_path: Path) -> None:
    flat, sharp = (Image.open(BytesIO(data)) for data in (FLAT, GREEN))
    (tmp_path / "pages.tiff").write_bytes(encoded(flat, "TIFF", save_all=True, append_images=[sharp]))
    (tmp_path / "blue.png").write_bytes(BLUE)
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(tmp_path / "blue.png", "blue.png")
    with tarfile.open(tmp_path / "images.tar") as tar:
        (member,) = tar.getmembers()
    stays = InterleavedBlurFilterStage().process(
        batch(
            at("a", 0, path=tmp_path / "pages.tiff", frame_index=0),
            at("a", 1, path=tmp_path / "pages.tiff", frame_index=1),
            at("a", 2, path=tmp_path / "images.tar", member="blue.png"),
            at("a", 3, path=tmp_path / "images.tar", byte_offset=member.offset_data, byte_size=member.size),
        )
    )
    assert [json.loads(ref).get("frame_index") for ref in stays.data["source_ref"].to_pylist()] == [1, None, None]


@dataclass
class BrightEnough(BaseInterleavedFilterStage):
    """A user's own filter, written as for NeMo Curator."""

    least: int = 6000
    name: str = "bright_enough"

    def content_keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        keep = pd.Series(True, index=df.index, dtype=bool)
        for index, data in self.iter_materialized_bytes(task, df, df["modality"] == "image"):
            keep.loc[index] = data is not None and len(data) >= self.least
        return keep


def test_a_filter_of_ones_own_overrides_the_mask_alone(tmp_path: Path) -> None:
    (tmp_path / "green.png").write_bytes(GREEN)
    rows = [
        image("b", 1, FLAT),
        image("b", 0),
        metadata("c"),
        at("a", 0, path=tmp_path / "green.png"),
        text("b", 2),
        image("c", 0, None),
    ]
    stays = BrightEnough().process(batch(*rows))
    assert places(stays.data) == [("a", 0, "image"), ("b", 0, "image"), ("b", 1, "text")]
    assert BrightEnough().process(InterleavedBatch(data=batch(*rows).to_pandas())).num_items == 3


def test_bytes_are_handed_out_for_the_rows_that_are_asked_for() -> None:
    pages = encoded(
        Image.new("RGB", (4, 4), "white"), "TIFF", save_all=True, append_images=[Image.new("RGB", (4, 4), "red")]
    )
    df = batch(
        image("a", 0), text("a", 1), image("a", 2, pages, source_ref='{"frame_index": 1}'), image("a", 3)
    ).to_pandas()
    found = dict(BrightEnough().iter_materialized_bytes(InterleavedBatch(data=df), df, df["position"] < 3))
    assert list(found) == [0, 1, 2]
    assert (found[0], found[1]) == (RED, None)
    assert Image.open(BytesIO(found[2] or b"")).getpixel((0, 0)) == (255, 0, 0)


@dataclass
class Inverted(InterleavedBlurFilterStage):
    """A published filter with another mask."""

    def content_keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        return ~super().content_keep_mask(task, df) | (df["modality"] != "image")


def test_the_mask_of_a_published_filter_can_be_built_on() -> None:
    assert pictures(Inverted().process(batch(image("a", 1, FLAT), image("a", 0))).data) == [FLAT]


def test_a_model_is_found_where_it_lies(tmp_path: Path) -> None:
    assert InterleavedCLIPScoreFilterStage().model == "openai/clip-vit-large-patch14"
    assert InterleavedCLIPScoreFilterStage(model_dir=str(tmp_path)).model == str(tmp_path)
    (tmp_path / "openai" / "clip-vit-large-patch14").mkdir(parents=True)
    assert InterleavedCLIPScoreFilterStage(model_dir=str(tmp_path)).model == f"{tmp_path}/openai/clip-vit-large-patch14"


def test_gpu_memory_chooses_the_gpu_where_there_is_one() -> None:
    assert InterleavedCLIPScoreFilterStage().resources.device == "auto"
    assert InterleavedCLIPScoreFilterStage(resources=Resources()).resources.device == "cpu"
    assert InterleavedBlurFilterStage().with_(name="other", resources=Resources(gpus=1)).name == "other"


@dataclass
class EvenPositions(BaseInterleavedFilterStage):
    """A filter by positions, of which a filter sees 0, 1, 2, ..."""

    name: str = "even_positions"

    def content_keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        assert task.to_pandas()["position"].equals(df["position"])
        return (df["position"] % 2 == 0) | (df["modality"] == "metadata")


def test_a_filter_of_ones_own_sees_positions_counted_without_gaps() -> None:
    stays = EvenPositions().process(batch(metadata("a"), *(text("a", n, str(n)) for n in (9, 2, 0, 5)), text("b", -1)))
    assert stays.data["text_content"].to_pylist() == [None, "0", "5"]
    assert places(stays.data) == [("a", -1, "metadata"), ("a", 0, "text"), ("a", 1, "text")]


@dataclass
class Says(BaseInterleavedFilterStage):
    """A filter whose mask is what a function makes of the rows."""

    name: str = "says"
    mask_of: Any = None

    def content_keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        said: pd.Series = self.mask_of(df)
        return said


@pytest.mark.parametrize(
    ("mask_of", "message"),
    [
        (lambda df: (df["position"] >= 0).to_numpy(), "says: the mask is ndarray; give a boolean Series"),
        (lambda df: [True] * len(df), "says: the mask is list"),
        (lambda df: None, "says: the mask is NoneType"),
        (lambda df: df, "says: the mask is DataFrame"),
        (lambda df: df["modality"], "says: the mask is a Series of"),
        (lambda df: df["position"], "says: the mask is a Series of int32"),
        (lambda df: pd.Series([True]), "says: the mask has 1 rows, the table 2"),
    ],
)
def test_a_mask_that_is_none_is_refused(mask_of: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Says(mask_of=mask_of).process(batch(image("a", 0), image("a", 1)))


def test_a_mask_may_say_nothing_of_a_row_and_be_in_another_order() -> None:
    rows = batch(image("a", 0), image("a", 1, GREEN), image("a", 2, BLUE))
    for said in (pd.Series({2: True, 0: None, 1: False}), pd.Series({2: True, 0: pd.NA, 1: False}, dtype="boolean")):
        assert pictures(Says(mask_of=lambda df, said=said: said).process(rows).data) == [BLUE]


@pytest.mark.parametrize("column", ["sample_id", "position", "modality"])
@pytest.mark.parametrize("stage", [InterleavedBlurFilterStage(), EvenPositions()], ids=["native", "own"])
def test_rows_that_are_no_documents_are_refused(column: str, stage: BaseInterleavedFilterStage) -> None:
    rows = batch(image("a", 0)).data.drop_columns([column])
    for data in (rows, rows.to_pandas()):
        with pytest.raises(UsageError, match=f"no column '{column}'"):
            stage.process(InterleavedBatch(data=data))


def test_a_model_is_loaded_once_until_its_files_change(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(Path(clipsieve.encoders.__file__).parent / "demo_clip", folder)
    first = encoder(str(folder), "cpu")
    assert encoder(str(folder), "cpu") is first
    os.utime(folder / "config.json", (0, time.time() + 10))
    assert encoder(str(folder), "cpu") is not first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InterleavedBlurFilterStage(score_threshold=math.nan), "check the thresholds"),
        (lambda: InterleavedImageToTextRatioFilterStage(min_ratio=2, max_ratio=1), "between 2 and 1"),
        (lambda: InterleavedQRCodeFilterStage(aggregate="mean"), "one of largest, sum"),
        (lambda: InterleavedBlurFilterStage(500.0), "True or False, not 500.0; say which.*score_threshold=500.0"),  # type: ignore[arg-type]
        (lambda: InterleavedBlurFilterStage(True, 500.0), "name is text, not 500.0.*score_threshold=500.0"),  # type: ignore[arg-type]
        (lambda: BrightEnough(6000), "bright_enough: drop_invalid_rows.*least=6000"),  # type: ignore[arg-type]
        (lambda: InterleavedBlurFilterStage(score_threshold="100"), "score_threshold is a number, not '100'"),  # type: ignore[arg-type]
        (lambda: InterleavedBlurFilterStage(score_threshold=None), "score_threshold is a number, not None"),  # type: ignore[arg-type]
        (lambda: InterleavedAspectRatioFilterStage(max_aspect_ratio=True), "max_aspect_ratio is a number, not True"),
        (lambda: InterleavedCLIPScoreFilterStage(model_dir=5), "model_dir is a path, not 5"),  # type: ignore[arg-type]
        (lambda: nemo.InterleavedParquetReader(None), "file_paths is a path, a glob.*not None"),  # type: ignore[arg-type]
        (lambda: nemo.InterleavedParquetReader(5), "file_paths is a path"),  # type: ignore[arg-type]
        (lambda: nemo.InterleavedParquetReader([None]), r"file_paths is a path.*not \[None\]"),  # type: ignore[list-item]
        (lambda: nemo.InterleavedParquetReader("a", files_per_partition=True), "files_per_partition.*not True"),
        (lambda: nemo.InterleavedParquetReader("a", fields=[5]), r"fields is a list of columns, not \[5\]"),  # type: ignore[list-item]
        (lambda: nemo.InterleavedParquetReader("a", fields="url"), "fields is a list of columns, not 'url'"),
        (lambda: nemo.InterleavedParquetReader("a", read_kwargs=None), "read_kwargs is a mapping.*not None"),  # type: ignore[arg-type]
        (lambda: nemo.InterleavedParquetReader("a", read_kwargs={"storage_options": 5}), "read_kwargs is a mapping"),
        (lambda: nemo.InterleavedParquetReader("a", schema={"a": "int64"}), "schema is a pyarrow.Schema"),  # type: ignore[arg-type]
        (lambda: nemo.InterleavedParquetReader("a", schema_overrides={"a": "int64"}), "schema_overrides is a mapping"),
        (lambda: nemo.InterleavedWebdatasetReader("a", materialize_on_read=1), "materialize_on_read is True or False"),  # type: ignore[arg-type]
        (lambda: nemo.InterleavedParquetWriterStage("a", "yes"), "materialize_on_write is True or False, not 'yes'"),  # type: ignore[arg-type]
        (lambda: nemo.InterleavedParquetWriterStage(5), "path is a path, not 5"),  # type: ignore[arg-type]
        (lambda: nemo.InterleavedParquetReader([]), "file_paths is empty"),
        (lambda: nemo.InterleavedParquetReader("https://example.org/a.parquet"), "download it first"),
        (lambda: nemo.InterleavedParquetReader("a", blocksize="many"), "128MiB"),
        (lambda: nemo.InterleavedParquetReader("a", files_per_partition=0), "files_per_partition"),
        (lambda: nemo.InterleavedParquetReader("a", read_kwargs={"columns": ["x"]}), "read_kwargs columns"),
        (lambda: nemo.InterleavedParquetReader("a", fields=["position"]), "always read"),
        (lambda: nemo.InterleavedWebdatasetReader("a", texts_field="paragraphs"), "texts_field='paragraphs'"),
        (lambda: nemo.InterleavedWebdatasetReader("a", image_member_field="x"), "image_member_field='x'"),
        (lambda: nemo.InterleavedParquetWriterStage(), "say where to write"),
        (lambda: nemo.InterleavedParquetWriterStage("a", output_dir="b"), "give one"),
        (lambda: nemo.InterleavedParquetWriterStage("s3://bucket/a"), "upload"),
        (lambda: nemo.InterleavedParquetWriterStage("a", mode="replace"), "mode is one of"),  # type: ignore[arg-type]
        (lambda: nemo.InterleavedParquetWriterStage("a", on_materialize_error="skip"), "drop_sample"),
    ],
)
def test_what_cannot_be_is_refused_at_once(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_picture_is_turned_as_its_exif_says_before_it_is_measured() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.open(BytesIO(image_bytes(size=(64, 48)))), "JPEG", exif=exif)
    assert InterleavedAspectRatioFilterStage(max_aspect_ratio=2.0).process(batch(image("a", 0, turned))).num_items == 0
