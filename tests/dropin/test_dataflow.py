"""Programs written for DataFlow run as they are but for their imports, and keep and remove what they did."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipsieve import dedup
from clipsieve.demo.scenes import Scene, Thing, render
from clipsieve.dropin.dataflow import DataFlowStorage, FileStorage, ImageClipFilter, ImageDeduplicateFilter
from clipsieve.errors import OutputError
from tests.fakes import COLOURS, ColourEncoder, image_bytes

CAPTIONS = {"star.jpg": "a red star on a white background", "ring.jpg": "a blue ring on a black background"}


def picture(colour: str, shape: str, background: str, grain: int = 1) -> Image.Image:
    return render(
        Scene(
            things=(Thing(colour=colour, shape=shape),), relation="above", background=background,
            texture="plain", width=256, height=256, grain=grain,
        )
    )  # fmt: skip


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures that the demo model knows, two of them the same but for their size."""
    monkeypatch.chdir(tmp_path)
    star, ring = picture("red", "star", "white"), picture("blue", "ring", "black")
    star.save("star.jpg")
    star.resize((230, 230)).save("star_copy.jpg")
    ring.save("ring.jpg")
    Path("broken.jpg").write_bytes(Path("star.jpg").read_bytes()[:400])
    return tmp_path


@pytest.fixture(scope="module")
def clip() -> ImageClipFilter:
    return ImageClipFilter("demo")


class Table(DataFlowStorage):
    """A storage of one's own, in memory."""

    def __init__(self, rows: Any) -> None:
        self.frame = pd.DataFrame(rows)

    def read(self, output_type: Any = "dataframe") -> Any:
        return self.frame

    def write(self, data: Any) -> None:
        self.frame = data

    def step(self) -> Table:
        return self


def lines(path: str | Path, rows: list[Any]) -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# --- the two programs ---


def test_the_program_that_filters_captions() -> None:
    lines("test_image_filter.jsonl", [
        {"image": "star.jpg", "caption": "a red star on a white background"},
        {"image": "ring.jpg", "caption": "a green cross left of a yellow heart"},
    ])  # fmt: skip

    storage = FileStorage(
        first_entry_file_name="test_image_filter.jsonl",   # columns image, caption
        cache_path="./cache_local", file_name_prefix="image_clip_filter", cache_type="jsonl")  # fmt: skip
    filt = ImageClipFilter(model_name="demo", device=None)
    cols = filt.run(storage=storage.step(), input_image_key="image", input_caption_key="caption", threshold=0.25)

    assert cols == ["image", "caption"]
    assert Path("cache_local/image_clip_filter_step1.jsonl").read_text() == (
        '{"image": "star.jpg", "caption": "a red star on a white background"}\n'
    )


def test_the_program_that_removes_near_duplicates() -> None:
    lines("images.jsonl", [{"image": name} for name in ("star.jpg", "ring.jpg", "star_copy.jpg")])

    storage = FileStorage(first_entry_file_name="images.jsonl")
    filt = ImageDeduplicateFilter(model_name="demo", threshold=0.90, batch_size=32)
    cols = filt.run(storage.step(), input_image_key="image", output_score_key="max_similarity")

    assert cols == ["image", "max_similarity"]
    kept = storage.step().read("dataframe")
    assert kept["image"].tolist() == ["star.jpg", "ring.jpg"]
    assert kept["max_similarity"][0] >= 0.96
    assert kept["max_similarity"][1] < 0.5, "the true highest cosine, to no duplicate"
    (pair,) = filt.duplicate_pairs
    assert pair == {"kept_idx": 0, "removed_idx": 2, "similarity": kept["max_similarity"][0]}


def test_one_storage_carries_a_table_from_operator_to_operator(clip: ImageClipFilter) -> None:
    wrong = {"image": "ring.jpg", "caption": CAPTIONS["star.jpg"]}
    right = [{"image": name, "caption": caption} for name, caption in CAPTIONS.items()]
    storage = FileStorage(lines("in.jsonl", [*right, wrong, {**right[0], "image": "star_copy.jpg"}]), "cache", "p")
    clip.run(storage.step())
    ImageDeduplicateFilter("demo").run(storage.step())
    assert len(pd.read_json("cache/p_step1.jsonl", lines=True)) == 3
    assert storage.step().read()["image"].tolist() == ["star.jpg", "ring.jpg"]


FUSED = "openai/clip-vit-base-patch32"


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (ImageClipFilter, {"model_name": FUSED, "device": None}),
        (ImageClipFilter.run, {"storage": ..., "input_image_key": "image", "input_caption_key": "caption",
                               "threshold": 0.25}),
        (ImageClipFilter.compute_similarity, {"image_path": ..., "text": ...}),
        (ImageClipFilter.is_consistent, {"image_path": ..., "caption": ..., "threshold": 0.25}),
        # None stands for "cuda if there is one, else cpu".
        (ImageDeduplicateFilter, {"model_name": FUSED, "threshold": 0.90, "batch_size": 32, "device": None}),
        (ImageDeduplicateFilter.run, {"storage": ..., "input_image_key": "image",
                                      "output_score_key": "max_similarity"}),
        (FileStorage, {"first_entry_file_name": ..., "cache_path": "./cache", "file_name_prefix": "dataflow_cache",
                       "cache_type": "jsonl"}),
        (FileStorage.read, {"output_type": "dataframe"}),
        (FileStorage.write, {"data": ...}),
    ],
)  # fmt: skip
def test_parameters_have_the_published_names_order_and_defaults(function: Any, parameters: dict[str, Any]) -> None:
    found = {name: p for name, p in inspect.signature(function).parameters.items() if name != "self"}
    assert list(found) == list(parameters)
    assert {name: ... if p.default is p.empty else p.default for name, p in found.items()} == parameters
    assert {p.kind for p in found.values()} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


# --- captions ---


def test_what_has_no_image_or_no_caption_scores_zero(clip: ImageClipFilter, caplog: pytest.LogCaptureFixture) -> None:
    good = CAPTIONS["star.jpg"]
    rows = [
        ("star.jpg", good), ("missing.jpg", good), ("broken.jpg", good), ("https://host/star.jpg", good), (None, good),
        ("star.jpg", ""), ("star.jpg", " \n"), ("star.jpg", None), ("star.jpg", 7),
    ]  # fmt: skip
    table = Table({"image": [image for image, _ in rows], "caption": [caption for _, caption in rows]})
    clip.run(table, threshold=1e-9)
    assert table.frame["image"].tolist() == ["star.jpg"]
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "1 of 9 captions are no text and score 0.0",
        "4 of 9 images cannot be read and score 0.0: 1 missing, 1 undecodable, 1 not fetched, 1 no image; "
        "images by URL are not fetched, download them first",
    ]
    assert [clip.compute_similarity(image, good) for image in ("missing.jpg", "broken.jpg")] == [0.0, 0.0]
    assert [clip.compute_similarity("star.jpg", text) for text in ("", "  ", None)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("threshold", [0, -0.5])
def test_no_similarity_is_below_zero_so_that_all_rows_stay(clip: ImageClipFilter, threshold: float) -> None:
    table = Table({"image": ["star.jpg", "ring.jpg", "missing.jpg"], "caption": ["a blue ring", "", "a red star"]})
    clip.run(table, threshold=threshold)
    assert len(table.frame) == 3
    assert clip.compute_similarity("star.jpg", "a blue ring on a black background") == 0.0, "a negative cosine"


def test_the_threshold_itself_is_kept_and_scores_have_5_decimals(clip: ImageClipFilter) -> None:
    score = clip.compute_similarity("star.jpg", CAPTIONS["star.jpg"])
    assert score == round(score, 5)
    for threshold, kept in ((score, 1), (score + 1e-9, 0), (np.float64(score), 1), (1, 0), (1.5, 0)):
        table = Table({"image": ["star.jpg"], "caption": [CAPTIONS["star.jpg"]]})
        clip.run(table, threshold=threshold)
        assert len(table.frame) == kept
        assert clip.is_consistent("star.jpg", CAPTIONS["star.jpg"], threshold) is bool(kept)


@pytest.mark.parametrize("odd", [["star.jpg"], np.array(["star.jpg"]), np.zeros((4, 4)), {"bytes": 5}, np.nan, 5])
def test_one_pair_scores_as_in_a_table_when_its_cells_are_odd(clip: ImageClipFilter, odd: Any) -> None:
    for image, caption in ((odd, "a red star"), ("star.jpg", odd)):
        cells = {"image": pd.Series([image], dtype=object), "caption": pd.Series([caption], dtype=object)}
        table = Table(pd.DataFrame(cells))
        clip.run(table, threshold=1e-9)
        assert table.frame.empty
        assert clip.compute_similarity(image, caption) == 0.0
        assert not clip.is_consistent(image, caption, 1e-9)


def test_a_threshold_that_is_no_number_is_refused(clip: ImageClipFilter) -> None:
    with pytest.raises(ValueError, match="nan"):
        clip.run(Table({"image": ["star.jpg"], "caption": ["a"]}), threshold=float("nan"))


def test_images_may_be_paths_bytes_or_pictures(clip: ImageClipFilter) -> None:
    star, data = Image.open("star.jpg"), Path("star.jpg").read_bytes()
    cells = ["star.jpg", Path("star.jpg").absolute(), data, star, {"bytes": data, "path": None}, np.asarray(star)]
    table = Table({"image": cells, "caption": [CAPTIONS["star.jpg"]] * len(cells)})
    clip.run(table)
    assert len(table.frame) == len(cells)
    assert table.frame["image"][3] is star
    assert len({clip.compute_similarity(cell, "a red star") for cell in cells}) == 1


def test_a_caption_over_77_tokens_is_cut_and_one_note_says_how_many(
    clip: ImageClipFilter, caplog: pytest.LogCaptureFixture
) -> None:
    long = CAPTIONS["star.jpg"] + ", seen from afar" * 40
    table = Table({"image": ["star.jpg"] * 3, "caption": [long, long, CAPTIONS["star.jpg"]]})
    clip.run(table, threshold=0.01)
    assert [record.message for record in caplog.records if "context" in record.message] == [
        "2 of 3 captions are over the model's context; what does not fit is not scored"
    ]
    assert clip.compute_similarity("star.jpg", long) == clip.compute_similarity("star.jpg", long + " and more")


def test_other_columns_keep_their_values_and_types_and_the_index_begins_anew(clip: ImageClipFilter) -> None:
    frame = pd.DataFrame(
        {
            "picture": ["ring.jpg", "star.jpg", "star.jpg"],
            "words": ["a red star on a white background"] * 3,
            "number": np.array([1, 2, 3], dtype=np.int8),
            "maybe": pd.array([1, None, 3], dtype="Int64"),
            "kind": pd.Categorical(["a", "b", "b"]),
            "when": pd.to_datetime(["2024-01-01", "2024-01-02", None]),
            "nested": [{"a": [1]}, {"a": [2]}, None],
        },
        index=[7, 8, 9],
    )
    table = Table(frame)
    assert clip.run(table, "picture", "words", 0.25) == ["picture", "words"]
    pd.testing.assert_frame_equal(table.frame, frame.iloc[1:].reset_index(drop=True))


def test_any_object_that_reads_and_writes_is_a_storage(clip: ImageClipFilter) -> None:
    class Duck:
        written = None

        def read(self, output_type: str) -> pd.DataFrame:
            return pd.DataFrame({"image": ["star.jpg"], "caption": [CAPTIONS["star.jpg"]]})

        def write(self, data: pd.DataFrame) -> None:
            self.written = data

    duck = Duck()
    clip.run(duck)
    assert duck.written is not None
    ImageDeduplicateFilter("demo").run(duck)
    assert duck.written.columns.tolist() == ["image", "caption", "max_similarity"]


def test_a_table_without_rows_stays_one(clip: ImageClipFilter) -> None:
    table = Table({"image": [], "caption": [], "id": np.zeros(0, dtype=np.int16)})
    clip.run(table)
    assert table.frame.columns.tolist() == ["image", "caption", "id"]
    deduplicate = ImageDeduplicateFilter("demo")
    deduplicate.run(table)
    assert table.frame.dtypes["id"] == np.int16
    assert table.frame.dtypes["max_similarity"] == np.float64
    assert len(deduplicate.duplicate_pairs) == 0


def test_a_table_of_which_nothing_stayed_goes_through_the_next_step(
    clip: ImageClipFilter, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in ("jsonl", "json", "csv", "parquet"):
        storage = FileStorage(lines("in.jsonl", [{"image": "gone.jpg", "caption": "a"}]), f"of_{kind}", cache_type=kind)
        clip.run(storage.step())
        assert clip.run(storage.step()) == ["image", "caption"]
        ImageDeduplicateFilter("demo").run(storage.step())
        assert storage.step().read("dict") == []
    assert "the table is empty: there is nothing to filter" in caplog.text


def test_two_columns_of_one_name_are_refused(clip: ImageClipFilter) -> None:
    frame = pd.DataFrame([["star.jpg", "a", "b"]], columns=["image", "caption", "caption"])
    for call in (lambda: clip.run(Table(frame)), lambda: FileStorage("").step().write(frame)):
        with pytest.raises(ValueError, match="two columns of the table have the name 'caption'"):
            call()


def test_a_missing_column_is_named_beside_those_there_are(clip: ImageClipFilter) -> None:
    with pytest.raises(ValueError, match=r"no column 'caption'; it has: image, text"):
        clip.run(Table({"image": ["star.jpg"], "text": ["a"]}))
    with pytest.raises(ValueError, match=r"no column 'img'; it has: image"):
        ImageDeduplicateFilter("demo").run(Table({"image": ["star.jpg"]}), input_image_key="img")


# --- near duplicates ---


def coloured(rgb: tuple[float, float, float]) -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), tuple(round(level) for level in rgb)).save(file, "PNG")
    return file.getvalue()


def at_angle(degrees: float) -> bytes:
    """An image that the colour encoder sees at this angle from red towards green."""
    return coloured((250 * np.cos(np.radians(degrees)), 250 * np.sin(np.radians(degrees)), 0))


def by_colour(threshold: float = 0.90, batch_size: int = 32) -> tuple[ImageDeduplicateFilter, ColourEncoder]:
    filt, encoder = ImageDeduplicateFilter("demo", threshold, batch_size), ColourEncoder()
    filt.encoder = encoder
    return filt, encoder


def test_a_duplicate_of_a_removed_image_goes_too() -> None:
    # a ~ b and b ~ c by 20 degrees (0.94), a and c are 40 apart (0.77).
    table = Table({"image": [at_angle(0), at_angle(20), at_angle(40), coloured(COLOURS["blue"])], "id": list("abcd")})
    filt, _ = by_colour()
    filt.run(table)
    assert table.frame["id"].tolist() == ["a", "d"]
    assert [(pair["kept_idx"], pair["removed_idx"]) for pair in filt.duplicate_pairs] == [(0, 1), (1, 2)]
    assert table.frame["max_similarity"].tolist() == [
        filt.duplicate_pairs[0]["similarity"],
        pytest.approx(0.12, abs=0.02),
    ]


def test_images_that_do_not_load_are_left_out_and_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    star = Path("star.jpg").absolute()
    table = Table({"image": ["missing.jpg", "star.jpg", "broken.jpg", None, "http://host/a.jpg", star], "id": range(6)})
    filt = ImageDeduplicateFilter("demo")
    filt.run(table)
    assert table.frame["id"].tolist() == [1]
    assert filt.duplicate_pairs[0] == {"kept_idx": 0, "removed_idx": 1, "similarity": 1.0}
    (warning,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert warning == (
        "4 of 6 images cannot be read and are left out: 1 missing, 1 undecodable, 1 no image, 1 not fetched; "
        "images by URL are not fetched, download them first"
    )


@pytest.mark.parametrize("cells", [["star.jpg"], ["star.jpg", "missing.jpg"]])
def test_an_image_without_another_has_the_similarity_zero(cells: list[str]) -> None:
    table = Table({"image": cells})
    ImageDeduplicateFilter("demo").run(table, output_score_key="score")
    assert table.frame.to_dict("records") == [{"image": "star.jpg", "score": 0.0}]


def test_nothing_that_loads_leaves_no_row() -> None:
    table = Table({"image": ["missing.jpg", None]})
    filt = ImageDeduplicateFilter("demo")
    filt.run(table)
    assert table.frame.columns.tolist() == ["image", "max_similarity"]
    assert len(table.frame) == len(filt.duplicate_pairs) == 0


def test_the_size_of_batches_is_passed_on() -> None:
    table = Table({"image": [image_bytes(seed=seed) for seed in range(5)]})
    filt, encoder = by_colour(batch_size=2)
    filt.run(table)
    assert max(encoder.image_batches) == 2


def test_thousands_of_equal_images_give_millions_of_pairs_when_asked_for() -> None:
    filt, _ = by_colour(batch_size=512)
    table = Table({"image": [at_angle(10)] * 5000})
    filt.run(table)
    assert len(table.frame) == 1
    assert len(filt.duplicate_pairs) == 5000 * 4999 // 2
    assert filt.duplicate_pairs[-1] == {"kept_idx": 4998, "removed_idx": 4999, "similarity": 1.0}
    assert [pair["removed_idx"] for pair in filt.duplicate_pairs[4997:5000]] == [4998, 4999, 2]
    assert next(iter(filt.duplicate_pairs)) == filt.duplicate_pairs[0]


def test_duplicates_are_searched_exactly_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dedup.semantic.__globals__, "EXACT_PAIRS", 0)  # as if there were millions
    monkeypatch.setattr("clipsieve.dedup.methods.approximate", None)
    table = Table({"image": [at_angle(0), at_angle(10), at_angle(90)]})
    by_colour()[0].run(table)
    assert len(table.frame) == 2


def test_what_no_search_for_duplicates_can_use_is_refused() -> None:
    with pytest.raises(ValueError, match="between -1 and 1, not 90"):
        ImageDeduplicateFilter("demo", threshold=90)
    with pytest.raises(ValueError, match="batch_size is a number of images, 1 or more, not 0"):
        ImageDeduplicateFilter("demo", batch_size=0)
    with pytest.raises(ValueError, match="output_score_key 'image' is the column of the images"):
        by_colour()[0].run(Table({"image": ["star.jpg"]}), output_score_key="image")


# --- files ---


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_a_table_goes_through_a_file_of_each_type(kind: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "image": ["a.jpg", "b.jpg"],
            "caption": ['Zwölf 🎈, "so"\n', None],
            "score": [1 / 3, np.nan],
            "year": [2024, 7],
        }
    )
    storage = FileStorage("", cache_path="new/folder", file_name_prefix="run", cache_type=kind)
    assert storage.step().write(frame) == f"new/folder/run_step1.{kind}"
    again = FileStorage(f"new/folder/run_step1.{kind}").step().read()
    assert again["score"][0] == 1 / 3, "with all its digits"
    pd.testing.assert_frame_equal(again.astype(frame.dtypes), frame)
    assert [path.name for path in Path("new/folder").iterdir()] == [f"run_step1.{kind}"]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_integers_keep_their_digits_beside_missing_cells_and_fractions(kind: Any) -> None:
    rows = [
        {"id": 9007199254740993, "few": 3, "mixed": 2, "long": 2**63},
        {"id": None, "few": None, "mixed": 0.5, "long": 2**63 + 1},
    ]
    storage = FileStorage("", cache_type=kind)
    storage.step().write(rows)
    again = storage.step().read()
    assert again["id"].astype(object)[0] == 9007199254740993
    assert str(again["few"].astype(object)[0]) == "3"
    assert again["mixed"].tolist() == [2, 0.5]
    assert [int(cell) for cell in again["long"]] == [2**63, 2**63 + 1]
    if kind == "jsonl":
        storage.write(again)
        first, second = map(json.loads, Path("cache/dataflow_cache_step2.jsonl").read_text().splitlines())
        assert (first["id"], first["few"], second["id"]) == (9007199254740993, 3, None)


def test_large_integers_among_fractions_stay_integers() -> None:
    storage = FileStorage(lines("in.jsonl", [{"a": 9007199254740993}, {"a": 0.5}]))
    assert storage.step().read()["a"].tolist() == [9007199254740993, 0.5]


def test_integers_of_a_parquet_file_keep_their_digits_beside_nulls() -> None:
    pq.write_table(pa.table({"id": [9007199254740993, None]}), "in.parquet")
    assert FileStorage("in.parquet").step().read()["id"].astype(object)[0] == 9007199254740993


def test_each_operator_holds_its_own_step() -> None:
    storage = FileStorage(lines("in.jsonl", [{"a": 1}, {"a": 2}]))
    first = storage.step()
    first.write([{"a": 3}])
    second = storage.step()
    assert first.read("dict") == [{"a": 1}, {"a": 2}]
    assert second.read("dict") == [{"a": 3}]
    assert second.get_keys_from_dataframe() == ["a"]
    assert storage.reset() is storage
    assert storage.step().read("dict") == [{"a": 1}, {"a": 2}]


def test_before_the_first_step_nothing_is_read_or_written() -> None:
    storage = FileStorage(lines("in.jsonl", [{"a": 1}]))
    for call in (storage.read, lambda: storage.write([{"a": 1}]), storage.get_keys_from_dataframe):
        with pytest.raises(ValueError, match=r"call storage.step\(\) before"):
            call()


def test_an_empty_first_entry_is_an_empty_table() -> None:
    assert FileStorage("").step().read().empty
    assert FileStorage("").step().read("dict") == []


def _read(path: str, content: bytes | None = None) -> Any:
    if content is not None:
        Path(path).write_bytes(content)
    return FileStorage(path).step().read()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: FileStorage("a.jsonl", cache_type="pickle"), ValueError, "run any code that is in it; use parquet"),
        (lambda: FileStorage("a.pkl").step().read(), ValueError, "a.pkl: pickle is not read"),
        (lambda: FileStorage("a.pickle").step().read(), ValueError, "pandas.read_pickle"),
        (lambda: FileStorage("a.jsonl", cache_type="xml"), ValueError, "use json, jsonl, csv or parquet"),
        (lambda: FileStorage("a.txt").step().read(), ValueError, "a.txt: not a type"),
        (lambda: FileStorage("gone.jsonl").step().read(), FileNotFoundError, "gone.jsonl is not there"),
        (lambda: FileStorage("ms:name").step().read(), ValueError, "ModelScope is not read; download"),
        (lambda: FileStorage("hf:a:b:c:d").step().read(), ValueError, "hf:NAME:CONFIG:SPLIT"),
        (lambda: _read("a.csv", b"a\n\xff\n"), ValueError, "a.csv cannot be read as csv: 'utf-8' codec can't decode"),
        (lambda: _read("a.csv", b'a,b\n1,"x\n2,y\n'), ValueError, "a.csv: a quote in line 2 is never closed"),
        (lambda: _read("a.csv", b"a,a\n"), ValueError, "a.csv: two columns have the name 'a'"),
        (lambda: _read("a.csv", b"a,b\n1\n"), ValueError, "a.csv: no row fits the header: line 2 (1 cells, not 2)"),
        (lambda: _read("a.parquet", b"none"), ValueError, "a.parquet cannot be read as parquet: "),
        (lambda: Path("a.json").mkdir() or _read("a.json"), ValueError, "a.json cannot be read as json: Is a"),
        (lambda: FileStorage("").step().read("arrow"), ValueError, "'dataframe' or 'dict', not 'arrow'"),
        (lambda: FileStorage("").step().write([1]), ValueError, "not a list with int"),
        (lambda: FileStorage("").step().write("text"), ValueError, "a list of dicts, not str"),
        (lambda: FileStorage("").step().write([{"image": b"x"}]), ValueError, "use cache_type='parquet'"),
        (lambda: FileStorage("", cache_type="csv").step().write([{"image": b"x"}]), ValueError, "'parquet'"),
        (lambda: FileStorage("", cache_type="csv").step().write([{"i": {"bytes": b"x"}}]), ValueError, "'parquet'"),
        (lambda: FileStorage("").step().write([{"i": Image.new("RGB", (1, 1))}]), ValueError, "save images as files"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        make()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(Path().glob("cache/*")), "nothing is left half-written"


def test_a_full_disk_leaves_the_file_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FileStorage("").step()
    path = storage.write([{"a": 1}])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        storage.write([{"a": 2}])
    assert Path(path).read_text() == '{"a": 1}\n'


def test_bytes_go_through_parquet(clip: ImageClipFilter) -> None:
    storage = FileStorage("", cache_type="parquet")
    storage.step().write([{"image": Path("star.jpg").read_bytes(), "caption": CAPTIONS["star.jpg"]}])
    clip.run(storage.step())
    assert storage.step().read()["image"][0] == Path("star.jpg").read_bytes()


def test_lines_that_do_not_parse_are_skipped_and_named(caplog: pytest.LogCaptureFixture) -> None:
    Path("in.jsonl").write_bytes(
        b'\xef\xbb\xbf{"a": 1}\n{"a": \n\n{"a": 2} {"a": 3}\n[4]\n"text"\n{"a": "\xff"}\n{"a": 5} junk\n'
        b'{"a": 6}\r\n{"a": "7'
    )
    assert [row["a"] for row in FileStorage("in.jsonl").step().read("dict")] == [1, 2, 3, 6]
    (warning,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert warning == (
        "in.jsonl: skipped what is no JSON object: line 2 (Expecting ',' delimiter), lines 5-6 (not an object), "
        "line 7 (not UTF-8), line 8 ('junk' after the object), line 10 (Unterminated string starting at)"
    )


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1}, {"a": {"b": 2}}]',
        '{\n  "a": 1\n}\n{\n  "a": {\n    "b": 2\n  }\n}\n',
        '{"a": 1}{"a":\n{"b": 2}}',
        '{"a"\n:\n1\n}\n{\n\n"a":{"b"\n:2\n}}',
        '{"a": 1}\n\n{"a": {"b": 2}}\n',
    ],
)
def test_objects_may_stand_in_an_array_or_one_after_another(text: str, suffix: str) -> None:
    Path(f"in.{suffix}").write_text(text)
    assert FileStorage(f"in.{suffix}").step().read("dict") == [{"a": 1}, {"a": {"b": 2}}]


def test_an_object_may_take_many_lines() -> None:
    rows = [{"a": list(range(200)), "b": {"c": "d", "e": []}}, {"a": [{}, None, 1.5], "b": {}}]
    Path("in.jsonl").write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    assert FileStorage("in.jsonl").step().read("dict") == rows


def test_of_a_truncated_array_the_whole_objects_are_read(caplog: pytest.LogCaptureFixture) -> None:
    Path("in.json").write_text('[\n{"a": 1},\n{"a": 2},\n{"a"')
    assert FileStorage("in.json").step().read("dict") == [{"a": 1}, {"a": 2}]
    assert "line 1 (not an object), line 4" in caplog.text


def test_a_part_of_a_broken_object_is_no_row(caplog: pytest.LogCaptureFixture) -> None:
    Path("in.json").write_text('{\n  "a": 1,\n  "b": oops,\n  "c":\n  {"a": 2}\n}\n{\n  "a": 3\n}\n')
    assert FileStorage("in.json").step().read("dict") == [{"a": 3}]
    assert "line 1 (Expecting value), lines 2-5 (in a broken object), line 6 (not an object)" in caplog.text


def test_a_number_of_thousands_of_digits_is_called_so(caplog: pytest.LogCaptureFixture) -> None:
    Path("in.jsonl").write_text(f'{{"a": {"1" * 5000}}}\n{{"a": 2}}\n{{"a": {"[" * 100000}\n')
    assert FileStorage("in.jsonl").step().read("dict") == [{"a": 2}]
    assert "line 1 (a number of thousands of digits), line 3 (nested too deeply)" in caplog.text


def test_rows_of_csv_that_do_not_fit_the_header_are_skipped_and_named(caplog: pytest.LogCaptureFixture) -> None:
    Path("in.csv").write_text('image,caption\na,1\nb,2,3\n\nc\nd,"x"y\n"e\n",5\n')
    assert FileStorage("in.csv").step().read("dict") == [{"image": "a", "caption": 1}, {"image": "e\n", "caption": 5}]
    (warning,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert warning == (
        "in.csv: skipped what does not fit the header: line 3 (3 cells, not 2), line 5 (1 cells, not 2), "
        "line 6 (',' expected after '\"')"
    )


def test_csv_is_written_back_as_it_was_read() -> None:
    text = "id,code,score,yes,,big\n9007199254740993,007,0.1,True,x,12345678901234567890\n,1e5,-inf,False,1.0,\n"
    Path("in.csv").write_text(text)
    storage = FileStorage("in.csv", cache_type="csv").step()
    frame = storage.read()
    assert frame.columns[4] == "Unnamed: 4"
    assert Path(storage.write(frame.rename(columns={"Unnamed: 4": ""}))).read_text() == text


@pytest.mark.parametrize("text", ["no json\n", '[{"a": 1}, 2]', '[{"a": 1'])
def test_a_file_that_is_no_table_is_refused(text: str) -> None:
    Path("in.json").write_text(text)
    with pytest.raises(ValueError, match=r"^in.json: "):
        FileStorage("in.json").step().read()


def test_text_stays_text() -> None:
    rows = [{"id": "007", "date": "2024-01-01", "caption": "NA", "half": "x\ud83d"}]
    assert FileStorage(lines("in.jsonl", rows)).step().read("dict") == [{**rows[0], "half": "x?"}]
    Path("in.csv").write_text("image,caption\na.jpg,None\nb.jpg,\n")
    assert FileStorage("in.csv").step().read()["caption"].fillna("missing").tolist() == ["None", "missing"]


def test_what_json_has_no_word_for_becomes_what_it_has() -> None:
    frame = pd.DataFrame({"when": pd.to_datetime(["2024-01-02"]), "far": [np.inf], "list": [np.array([1.5, np.nan])]})
    storage = FileStorage("")
    storage.step().write(frame)
    assert Path("cache/dataflow_cache_step1.jsonl").read_text() == (
        '{"when": "2024-01-02T00:00:00", "far": null, "list": [1.5, null]}\n'
    )


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("hf:org/name", ("org/name", None, "train")),
        ("hf:org/name:test", ("org/name", None, "test")),
        ("hf:org/name:main:test", ("org/name", "main", "test")),
    ],
)
def test_a_data_set_of_the_hub(source: str, wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name: str, config: str | None = None, *, split: str) -> Any:
        asked.append((name, config, split))
        return datasets.Dataset.from_list([{"image": {"bytes": b"x", "path": None}, "caption": "a"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert FileStorage(source).step().read("dict") == [{"image": {"bytes": b"x", "path": None}, "caption": "a"}]
    assert asked == [wanted]


@pytest.mark.parametrize("missing", ["pandas", "datasets"])
def test_a_package_that_is_missing_is_named_with_its_remedy(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from clipsieve.dropin.dataflow import FileStorage; FileStorage('hf:name').step().read()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"needs {missing}: pip install 'clipsieve[dropin]'" in done.stderr.splitlines()[-1]
