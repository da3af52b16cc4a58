"""A node sees what the one that began the run sees, or says what it does not see and does nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest

from clipsieve.api.runs import open_source
from clipsieve.engines.commit import output_name
from clipsieve.engines.ray import worker_environment
from clipsieve.engines.ray.worker_environment import PROBES, WorkerEnvironment, named_images
from clipsieve.errors import EngineError, OutputError
from clipsieve.recipe import Recipe
from clipsieve.runfolder import clean_partials


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_environment, "PATIENCE_S", 0.0)
    monkeypatch.chdir(tmp_path)


def test_another_folder_of_the_same_name_is_not_the_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with WorkerEnvironment(folder=str(tmp_path)).writing([run]) as environment:
        environment.apply()
        worker_environment._check_seen.cache_clear()  # as another process
        run.rename(tmp_path / "of another machine")
        run.mkdir()
        with pytest.raises(EngineError, match=r"^node .* does not see the /.*/run that .*: run folder and output"):
            environment.apply()
        run.rmdir()
        (tmp_path / "of another machine").rename(run)


def test_sentinels_go_with_the_run_and_so_do_folders_that_stayed_empty(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with WorkerEnvironment(folder=".").writing([tmp_path / "run", tmp_path / "deep" / "output"]) as environment:
        assert [Path(sentinel).parent.name for sentinel in environment.sentinels] == ["run", "output"]
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


def test_the_sentinel_of_a_killed_run_goes_with_what_else_it_left(tmp_path: Path) -> None:
    with WorkerEnvironment(folder=".").writing([tmp_path], "mine-") as environment:
        clean_partials(tmp_path, output_name("other-"))
        assert Path(*environment.sentinels).exists()
        clean_partials(tmp_path, output_name("mine-"))
        assert not Path(*environment.sentinels).exists()


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writing = WorkerEnvironment(folder=".").writing([tmp_path / "file" / "output"])
    with pytest.raises(OutputError, match=r"^cannot write .*/file/output: Not a directory; .*to resume$"), writing:
        pass


def test_a_source_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    asked = [str(tmp_path / "images"), str(tmp_path / "never there"), "s3://bucket/images"]
    environment = WorkerEnvironment(folder=str(tmp_path)).reading(asked)
    assert environment.read == (str(tmp_path / "images"),)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(EngineError, match=r"does not see the .*/images that .*: source and images must be the same"):
        environment.apply()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_an_empty_folder_in_place_of_the_images_is_not_enough(tmp_path: Path, scheme: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    paths = [images / f"{number}.png" for number in range(5)]
    for path in paths[1:]:
        path.write_bytes(b"an image")
    fsspec.filesystem("memory").pipe("/rows.csv", "\n".join(["image", *(f"{scheme}{path}" for path in paths)]).encode())
    reader = open_source(Recipe.build({"read": "memory://rows.csv"}))
    environment = WorkerEnvironment(folder=".").reading(named_images(reader, reader.shards()))
    assert environment.read == tuple(map(str, paths[1 : 1 + PROBES]))
    environment.apply()
    worker_environment._check_seen.cache_clear()  # as another process
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(EngineError, match=r"does not see the .*/images/1\.png that .*: source and images must be"):
        environment.apply()


@pytest.mark.parametrize(("read", "relative"), [("data/*.csv", True), ("/data", False), ("s3://bucket/data", False)])
def test_a_node_may_lack_the_working_folder_where_no_path_is_relative(read: str, relative: bool) -> None:
    environment = WorkerEnvironment.of(Recipe.build({"read": read, "write": "jsonl:/out", "model": "demo"}), "/run")
    assert environment.relative == relative
    elsewhere = WorkerEnvironment(folder="/never/there", relative=relative)
    if relative:
        with pytest.raises(EngineError, match=r"does not see the /never/there, which relative paths are in"):
            elsewhere.apply()
    else:
        elsewhere.apply()
