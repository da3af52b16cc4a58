"""Labels of a source and of a finished run: the same numbers, and no image read for the latter."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

import clipsieve
from clipsieve import api
from clipsieve.api.labels import read_labels
from clipsieve.demo.scenes import Scene, Thing, render
from clipsieve.errors import ModelError, RecipeError, RunFolderError

SHAPES = ["star", "circle", "heart"]


def scene(shape: str, grain: int) -> Image.Image:
    thing = Thing(colour="red", shape=shape)
    return render(
        Scene(
            things=(thing,), relation="above", background="white", texture="plain", width=256, height=300, grain=grain
        )
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A star, a blurred circle, a broken file, a heart and two more stars; and a run of them, with vectors."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "images").mkdir()
    for number, shape in enumerate(["star", "circle", "", "heart", "star", "star"]):
        path = folder / "images" / f"{number}.png"
        if not shape:
            path.write_bytes(b"broken")
        else:
            image = scene(shape, random.Random(number).getrandbits(32))
            (image.filter(ImageFilter.GaussianBlur(6)) if shape == "circle" else image).save(path)
    clipsieve.run(read=str(folder / "images"), model="demo", keep=["blur >= 100"], vectors=True, out=folder / "run")
    return folder


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    """A run of the images that may be changed."""
    return shutil.copytree(data / "run", tmp_path / "run")


def test_a_source_and_a_run_get_the_same_labels(data: Path, run: Path, tmp_path: Path) -> None:
    of_source = clipsieve.label(str(data / "images"), labels=SHAPES, model="demo", all=True, out=tmp_path / "labels")
    of_run = clipsieve.label(run, labels=SHAPES, all=True)

    assert of_source.ledger["label"].to_pylist() == ["star", "circle", None, "heart", "star", "star"]
    # The run dropped the blurred circle before it was embedded: null. What cannot be read: NaN.
    assert of_run.ledger["label"].to_pylist() == ["star", None, None, "heart", "star", "star"]
    assert [str(value) for value in of_run.ledger["label_probability"].to_pylist()[1:3]] == ["None", "nan"]
    for row in (0, 3, 4, 5):
        for name in ("label", "label_probability", "label_probabilities"):
            assert of_run.ledger[name][row] == of_source.ledger[name][row]
    assert of_run.ledger["label_probabilities"].to_pylist()[1:3] == [None, None]
    assert of_run.ledger.schema.field("label").metadata == {b"unit": b"image"}


def test_a_run_is_labelled_without_reading_an_image(data: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(data / "images", tmp_path / "images")
    score = {"labels": SHAPES, "templates": ["a photo of a {}"], "min_probability": 0.0, "all": False}
    run = clipsieve.run(read=str(copied), model="demo", scores={"label": score}, vectors=True, out=tmp_path / "run")
    before = {path: path.read_bytes() for path in (run.path / "ledger").iterdir()}
    shutil.rmtree(copied)

    labelled = clipsieve.label(run, labels=SHAPES[:2])

    assert set(labelled.ledger["label"].to_pylist()) == {"star", "circle", None}  # in place of the run's own
    assert labelled.ledger.column_names == run.ledger.column_names
    assert before == {path: path.read_bytes() for path in (run.path / "ledger").iterdir()}


def test_other_labels_replace_the_first_and_all_that_came_with_them(run: Path) -> None:
    clipsieve.label(run, labels=SHAPES, all=True)
    again = clipsieve.label(run, labels=["ring", "cross"], templates=["{}", "a {}"], min_probability=1.0)

    assert set(again.ledger["label"].to_pylist()) <= {"none of these", "ring", "cross", None}
    assert "label_probabilities" not in again.ledger.column_names
    about = json.loads(pq.read_schema(run / "added/label/00000.parquet").metadata[b"label"])
    assert (about["labels"], about["templates"], about["min_probability"]) == (["ring", "cross"], ["{}", "a {}"], 1.0)
    assert clipsieve.Run.open(run).ledger["label"].equals(again.ledger["label"])  # whoever opens it sees them
    assert [rows["label"].to_pylist() for _, rows, _ in again.batches()] == [again.ledger["label"].to_pylist()]


def test_all_probabilities_of_the_run_do_not_stay_beside_other_labels(data: Path, tmp_path: Path) -> None:
    own = clipsieve.label(
        str(data / "images"), labels=SHAPES, model="demo", all=True, vectors=True, out=tmp_path / "run"
    )
    assert own.ledger["label_probabilities"].null_count == 1
    assert clipsieve.label(own, labels=["ring", "cross"]).ledger["label_probabilities"].null_count == 6


def test_changed_labels_on_an_old_run_folder_are_another_recipe(data: Path, tmp_path: Path) -> None:
    source: dict[str, Any] = {"model": "demo", "out": tmp_path / "run", "limit": 1}
    clipsieve.label(str(data / "images"), labels=SHAPES, **source)
    clipsieve.label(str(data / "images"), labels=tuple(SHAPES), **source)
    with pytest.raises(RunFolderError, match="holds a run of another recipe"):
        clipsieve.label(str(data / "images"), labels=SHAPES[:2], **source)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"labels": ["cat"]}, RecipeError, "label: labels must be two or more"),
        ({"out": "x"}, RecipeError, "is a finished run and labelled as it is; leave out out"),
        ({"limit": 3, "vectors": True}, RecipeError, "leave out limit, vectors"),
        ({"labels": ["star", "very " * 100]}, RecipeError, "prompt over the model's context"),
        ({"model": "nowhere"}, ModelError, "model nowhere"),
    ],
)
def test_a_wrong_request_changes_nothing(
    run: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        clipsieve.label(run, **{"labels": SHAPES, **options})
    assert not (run / "added").exists()


def test_a_run_without_vectors_says_how_to_get_some(data: Path, tmp_path: Path) -> None:
    bare = clipsieve.run(read=str(data / "images"), keep=["width >= 1"], out=tmp_path / "run")
    with pytest.raises(RunFolderError, match="holds no image vectors: run its recipe with --vectors"):
        clipsieve.label(bare, labels=SHAPES)


def test_a_run_of_another_model_is_refused(run: Path) -> None:
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("encoder: fp32-", "encoder: fp32-0"))
    with pytest.raises(RunFolderError, match=r"was embedded by another model \(demo, fp32-0"):
        clipsieve.label(run, labels=SHAPES)


def test_a_run_that_its_labels_decided_keeps_them(data: Path, tmp_path: Path) -> None:
    decided = clipsieve.run(
        read=str(data / "images"), model="demo", keep=["label in (star, heart)"], vectors=True,
        scores={"label": {"labels": SHAPES}}, out=tmp_path / "run",
    )  # fmt: skip
    with pytest.raises(RunFolderError, match=r"was decided by labels of its own \(label in \(star, heart\)\)"):
        clipsieve.label(decided, labels=["ring", "cross"])


def test_an_over_long_label_leaves_no_run_folder(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="prompt over the model's context"):
        clipsieve.label(str(data / "images"), labels=["star", "very " * 100], model="demo", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffcat\r\n\n  salt, pepper \nZürich".encode())
    assert read_labels(file) == ["cat", "salt, pepper", "Zürich"]


# The contact sheet.


def test_a_sheet_shows_the_images_by_label_and_twice_the_same(run: Path, tmp_path: Path) -> None:
    labelled = clipsieve.label(run, labels=[*SHAPES[:2], "héart 心"])
    assert api.draw_sheet(labelled, tmp_path / "a.png") == 4
    assert api.draw_sheet(labelled, tmp_path / "b.png") == 4
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    red = (pixels[..., 0] > 180) & (pixels[..., 1:].max(axis=2) < 70)
    assert red.sum() > 4 * 1000


def test_an_image_that_is_gone_leaves_its_tile_empty(data: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(data / "images", tmp_path / "images")
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"image": "images/{i}.png"}}\n' for i in range(6)))
    labelled = clipsieve.label(str(tmp_path / "rows.jsonl"), labels=SHAPES, model="demo", out=tmp_path / "run")
    shutil.rmtree(copied)
    assert api.draw_sheet(labelled, tmp_path / "sheet.jpg") == 5


def test_a_sheet_needs_the_name_of_a_picture(run: Path) -> None:
    with pytest.raises(RecipeError, match=r"ends in \.png"):
        api.draw_sheet(clipsieve.Run.open(run), "sheet.txt")


def test_labels_reach_other_readers_of_a_run_as_columns(run: Path) -> None:
    ledger = clipsieve.label(run, labels=SHAPES).ledger
    assert ledger.schema.field("label_probability").type == pa.float64()
    clipsieve.Run.open(run).show()
