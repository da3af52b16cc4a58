"""Scores of the whole data set, beside the ledger of a finished run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import clipsieve
from clipsieve import NearestSimilarity, NegClipLoss, Run
from clipsieve.api import Silent
from clipsieve.api.dataset_scores import read_options
from clipsieve.errors import OutputError, RecipeError, RunFolderError
from tests.fakes import image_bytes

CAPTIONS = ["a red star", "", "a green ring", "a blue heart", "a white star", "", "a red ring", "a green heart"]
COLOURS = ["red", "blue", "green", "blue", "white", "red", "red", "green"]
SMOOTH, BROKEN = 3, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images in three files, so in several shards: one without noise, one broken, two without a caption; and a
    run of them, with vectors."""
    folder = tmp_path_factory.mktemp("data")
    for file, images in enumerate(np.array_split(np.arange(len(COLOURS)), 3)):
        rows = []
        for i in images.tolist():
            content = b"broken" if i == BROKEN else image_bytes(COLOURS[i], sharp=i != SMOOTH, seed=i)
            (folder / f"{i}.png").write_bytes(content)
            rows.append(json.dumps({"image": f"{i}.png", "caption": CAPTIONS[i]}))
        (folder / f"{file}.jsonl").write_text("\n".join(rows) + "\n")
    clipsieve.run(
        read={"path": str(folder / "*.jsonl"), "shard_bytes": 1}, model="demo", scores={"clip_score": {}},
        keep=["blur >= 100"], vectors=True, out=folder / "run",
    )  # fmt: skip
    return folder


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Run:
    """The run, to be changed."""
    return Run.open(shutil.copytree(data / "run", tmp_path / "run"))


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def values(run: Run, name: str) -> str:
    """A column as text, in which NaN is equal to itself."""
    return str(run.ledger[name].to_pylist())


def all_vectors(run: Run, of: Any) -> np.ndarray:
    return np.concatenate([run.vectors(shard.number, of) for shard in run.shards()])


def test_it_is_what_the_scorer_makes_of_the_vectors_null_or_nan_elsewhere(run: Run) -> None:
    assert len(run.shards()) > 1
    images, texts = all_vectors(run, "image"), all_vectors(run, "text")

    scored = clipsieve.add_score(clipsieve.add_score(run, "neg_clip_loss", tau=0.05), "nearest_similarity")

    loss, nearest = (scored.ledger[name].to_pylist() for name in ("neg_clip_loss", "nearest_similarity"))
    assert loss[SMOOTH] is None  # dropped before it was embedded
    assert nearest[SMOOTH] is None
    assert [i for i, value in enumerate(loss) if value != value] == [1, BROKEN, 5]  # NaN: no text, broken
    assert [i for i, value in enumerate(nearest) if value != value] == [BROKEN]
    for found, expected in (
        (loss, NegClipLoss(tau=0.05)(images, texts)["neg_clip_loss"]),
        (nearest, NearestSimilarity()(images)["nearest_similarity"]),
    ):
        given = [i for i, value in enumerate(found) if value is not None]
        np.testing.assert_array_equal([found[i] for i in given], expected[given])
    assert scored.ledger.schema.field("neg_clip_loss").metadata == {b"unit": b"image"}


def test_what_is_committed_stays_and_nothing_else_is_left(run: Run) -> None:
    before = files(run.path)
    clipsieve.add_score(run.path, "neg_clip_loss")
    after = files(run.path)
    assert {path: after.pop(path) for path in before} == before
    assert {path.parent for path in after} == {run.path / "added" / "neg_clip_loss"}
    about = json.loads(pq.read_schema(min(after)).metadata[b"neg_clip_loss"])
    assert about.items() >= {"images": 4, "tau": 0.01, "batch_size": 32768, "passes": 10, "seed": 0}.items()


def test_another_call_replaces_the_column(run: Run) -> None:
    first = clipsieve.add_score(run, "neg_clip_loss")
    columns, before = first.ledger.column_names, values(first, "neg_clip_loss")
    second = clipsieve.add_score(run, "neg_clip_loss", tau=1.0)
    assert second.ledger.column_names == columns
    assert values(second, "neg_clip_loss") != before
    assert values(Run.open(run.path), "neg_clip_loss") == values(second, "neg_clip_loss")
    second.show()


def test_no_image_and_no_model_is_read(data: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(data, tmp_path / "data")
    for path in copied.glob("*.*"):
        path.unlink()
    recipe = copied / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("model: demo", "model: nowhere"))
    clipsieve.add_score(copied / "run", "nearest_similarity")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("neg_clip_los", {}, r"unknown score 'neg_clip_los'; did you mean 'neg_clip_loss'\? known: neg_clip_loss, nea"),
        ("blur", {}, "blur is computed while a run reads its images; to a finished one can be added: neg_clip_loss"),
        ("neg_clip_loss", {"batchsize": 3}, r"neg_clip_loss: no option 'batchsize'; did you mean 'batch_size'\?"),
        ("nearest_similarity", {"zzz": 3}, "nearest_similarity: no option 'zzz'; options: method"),
        ("neg_clip_loss", {"tau": -1}, "neg_clip_loss: tau is a number from 1e-6 to 1e6, not -1"),
    ],
)
def test_a_wrong_request_changes_nothing(run: Run, name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        clipsieve.add_score(run, name, **options)
    assert not (run.path / "added").exists()


def test_options_from_the_command_line_have_the_type_of_their_field() -> None:
    assert read_options("neg_clip_loss", ["tau=0.02", "seed = 3"]) == {"tau": 0.02, "seed": 3}
    assert read_options("nearest_similarity", ["method=exact"]) == {"method": "exact"}
    for text, words in (
        ("tau", "an option reads KEY=VALUE, not 'tau'"),
        ("tau=x", "tau is a number, not 'x'"),
        ("passes=1.5", r"passes is a whole number, not '1\.5'"),
        ("Tau=1", r"no option 'Tau'; did you mean 'tau'\?"),
    ):
        with pytest.raises(RecipeError, match=f"neg_clip_loss: {words}"):
            read_options("neg_clip_loss", [text])
    with pytest.raises(RecipeError, match="the option tau appears twice"):
        read_options("neg_clip_loss", ["tau=1", "tau=2"])


def test_a_run_without_the_vectors_says_how_to_get_them(data: Path, run: Run, tmp_path: Path) -> None:
    bare = clipsieve.run(read=str(data / "*.jsonl"), keep=["width >= 1"], out=tmp_path / "bare")
    with pytest.raises(RunFolderError, match="holds no image vectors: run its recipe with --vectors"):
        clipsieve.add_score(bare, "nearest_similarity")
    for path in (run.path / "vectors").glob("*.text.npy"):
        path.unlink()
    with pytest.raises(RunFolderError, match=r"holds no text vectors, which neg_clip_loss needs: .* clip_score among"):
        clipsieve.add_score(run, "neg_clip_loss")
    clipsieve.add_score(run, "nearest_similarity")


def test_a_run_without_any_text_has_nothing_to_score(run: Run) -> None:
    for path in (run.path / "vectors").glob("*.text.npy"):
        np.save(path, np.full_like(np.load(path), np.nan))
    with pytest.raises(RunFolderError, match="has no image with an image vector and text vector; there is nothing"):
        clipsieve.add_score(run, "neg_clip_loss")


def test_an_unfinished_run_and_a_folder_that_is_none_are_refused(run: Run, tmp_path: Path) -> None:
    max((run.path / "ledger").iterdir()).unlink()
    with pytest.raises(RunFolderError, match=r"is not finished \(\d of \d shards\); run its command again first"):
        clipsieve.add_score(run, "nearest_similarity")
    with pytest.raises(RunFolderError, match="is not a run folder"):
        clipsieve.add_score(tmp_path, "nearest_similarity")


def test_a_run_that_the_score_decided_keeps_it(run: Run) -> None:
    recipe = run.path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("blur >= 100", "neg_clip_loss >= -0.5"))
    with pytest.raises(RunFolderError, match=r"was decided by its own neg_clip_loss \(neg_clip_loss >= -0\.5\)"):
        clipsieve.add_score(Run.open(run.path), "neg_clip_loss")
    clipsieve.add_score(Run.open(run.path), "nearest_similarity")


def test_vectors_that_do_not_go_with_the_ledger_are_damage(run: Run) -> None:
    path = min((run.path / "vectors").glob("*.image.npy"))
    np.save(path, np.load(path)[:-1])
    with pytest.raises(RunFolderError, match=r"image\.npy does not go with the ledger: the run folder is damaged"):
        clipsieve.add_score(run, "nearest_similarity")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_interrupted_the_old_column_stays_and_the_gathered_vectors_go(
    run: Run, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    before = values(clipsieve.add_score(run, "neg_clip_loss"), "neg_clip_loss")

    def interrupted(*_: object, **__: object) -> None:
        assert (run.path / "added" / ".partial-vectors" / "text.npy").exists()
        raise failure

    monkeypatch.setattr(NegClipLoss, "score", interrupted)
    with pytest.raises(failure):
        clipsieve.add_score(run, "neg_clip_loss", tau=1.0)
    assert os.listdir(run.path / "added") == ["neg_clip_loss"]
    assert values(Run.open(run.path), "neg_clip_loss") == before


def test_a_disk_without_room_for_the_gathered_vectors_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(run.path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"has no room to gather the vectors of 4 images \(.* GB free\); make room"):
        clipsieve.add_score(run, "neg_clip_loss")
    assert not (run.path / "added").exists()


def test_progress_says_what_is_scored_and_counts(run: Run) -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []
            self.steps: list[tuple[int, int]] = []

        def say(self, line: str) -> None:
            self.lines.append(line)

        def compare(self, done: int, total: int) -> None:
            self.steps.append((done, total))

    heard = Heard()
    clipsieve.add_score(run, "neg_clip_loss", progress=heard)
    assert heard.lines == [f"neg_clip_loss of 4 images of {run.path}, by their vectors"]
    assert heard.steps == [(1, 1)]
