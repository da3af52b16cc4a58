"""A node sees what the one that began the run sees, or says what it does not see and does nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clipsieve.engines.commit import output_name
from clipsieve.engines.ray import place as places
from clipsieve.engines.ray.place import Place
from clipsieve.errors import EngineError, OutputError
from clipsieve.recipe import Recipe
from clipsieve.runfolder import clean_partials


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "PATIENCE_S", 0.0)
    monkeypatch.chdir(tmp_path)


def test_another_folder_of_the_same_name_is_not_the_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Place(folder=str(tmp_path)).writing([run]) as place:
        place.enter()
        places._look.cache_clear()  # as another process
        run.rename(tmp_path / "of another machine")
        run.mkdir()
        with pytest.raises(EngineError, match=r"^node .* does not see the /.*/run that .*: run folder and output"):
            place.enter()
        run.rmdir()
        (tmp_path / "of another machine").rename(run)


def test_marks_go_with_the_run_and_so_do_folders_that_stayed_empty(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with Place(folder=".").writing([tmp_path / "run", tmp_path / "deep" / "output"]) as place:
        assert [Path(mark).parent.name for mark in place.marks] == ["run", "output"]
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


def test_the_mark_of_a_killed_run_goes_with_what_else_it_left(tmp_path: Path) -> None:
    with Place(folder=".").writing([tmp_path], "mine-") as place:
        clean_partials(tmp_path, output_name("other-"))
        assert Path(*place.marks).exists()
        clean_partials(tmp_path, output_name("mine-"))
        assert not Path(*place.marks).exists()


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writing = Place(folder=".").writing([tmp_path / "file" / "output"])
    with pytest.raises(OutputError, match=r"^cannot write .*/file/output: Not a directory; .*to resume$"), writing:
        pass


def test_a_source_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    asked = [str(tmp_path / "images"), str(tmp_path / "never there"), "s3://bucket/images"]
    place = Place(folder=str(tmp_path)).reading(asked)
    assert place.read == (str(tmp_path / "images"),)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(EngineError, match=r"does not see the .*/images that .*: source and images must be the same"):
        place.enter()


@pytest.mark.parametrize(("read", "relative"), [("data/*.csv", True), ("/data", False), ("s3://bucket/data", False)])
def test_a_node_may_lack_the_working_folder_where_no_path_is_relative(read: str, relative: bool) -> None:
    place = Place.of(Recipe.build({"read": read, "write": "jsonl:/out", "model": "demo"}), "/run")
    assert place.relative == relative
    elsewhere = Place(folder="/never/there", relative=relative)
    if relative:
        with pytest.raises(EngineError, match=r"does not see the /never/there, which relative paths are in"):
            elsewhere.enter()
    else:
        elsewhere.enter()
