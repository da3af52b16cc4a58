"""A process may be killed at any instant: the same command again gives what an undisturbed run gives, to the byte."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from clipsieve.errors import OutputError, RunFolderError
from clipsieve.recipe import Recipe
from clipsieve.runfolder import RunFolder, atomic
from tests.engines import killed

RULES = ["blur >= 100", "clip_score >= 0.5"]


def run_once(out: Path, when: str | None, count: int, more: Mapping[str, Any]) -> int | None:
    """The exit code of a process of its own, forked from one that has imported all that it needs."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.engines.killed"])
    process = processes.Process(target=killed.run_and_die, args=(out, when, count, more))
    process.start()
    process.join()
    return process.exitcode


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "more",
    [{"keep": RULES}, {"keep": [*RULES, "width in top 60%"], "dedup": "0.99999"}],
    ids=["one pass", "two passes"],
)
def test_killed_at_every_commit_it_ends_as_if_undisturbed(tmp_path: Path, when: str, more: Mapping[str, Any]) -> None:
    assert run_once(tmp_path / "whole", None, 0, more) == 0
    kills = 0
    for count in cycle((1, 7, 2, 8, 3, 7, 5)):
        code = run_once(tmp_path / "killed", when, count, more)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        assert kills < 40
    assert kills >= 3
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["ledger", "scores"])
def test_a_part_that_was_removed_is_made_again_after_two_passes(tmp_path: Path, lost: str) -> None:
    recipe = Recipe.build({**RECIPE, "keep": ["width in top 60%"]})
    killed.run(tmp_path, recipe)
    whole = contents(tmp_path)
    (tmp_path / "ledger" / "00001.parquet").unlink()
    (tmp_path / lost / "00002.parquet").unlink()
    killed.run(tmp_path, recipe)
    assert contents(tmp_path) == whole


def test_a_damaged_part_of_the_scores_is_one_line(tmp_path: Path) -> None:
    recipe = Recipe.build({**RECIPE, "keep": ["width in top 60%"]})
    killed.run(tmp_path, recipe)
    (tmp_path / "ledger" / "00001.parquet").unlink()
    (tmp_path / "scores" / "00002.parquet").write_bytes(b"damaged")
    with pytest.raises(RunFolderError, match=r"scores/00002\.parquet is damaged .*remove it"):
        killed.run(tmp_path, recipe)


def test_a_run_that_is_scored_and_not_decided_says_so(tmp_path: Path) -> None:
    recipe = Recipe.build({**RECIPE, "keep": ["width in top 60%"]})
    killed.run(tmp_path, recipe)
    for part in [*(tmp_path / "ledger").iterdir(), tmp_path / "scores" / "00001.parquet"]:
        part.unlink()
    said: list[str] = []
    with pytest.raises(RunFolderError, match="not finished: 3 of 4 shards are scored, and none is decided before all"):
        RunFolder(tmp_path).committed()
    killed.run(tmp_path, recipe, said.append)
    assert said == ["resuming: 3 of 4 shards are scored"]


RECIPE = {"read": "memory", "keep": ["blur >= 100"], "write": "webdataset"}


def test_a_changed_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    killed.run(tmp_path, Recipe.build(RECIPE))
    with pytest.raises(RunFolderError, match=r'another recipe \(keep: \["blur >= 100"\] then, \["blur >= 50"\] now\)'):
        killed.run(tmp_path, Recipe.build({**RECIPE, "keep": ["blur >= 50"]}))
    with pytest.raises(RunFolderError, match=r'another recipe \(write\.prefix: "" then, "a-" now\)'):
        killed.run(tmp_path, Recipe.build({**RECIPE, "write": {"webdataset": None, "prefix": "a-"}}))


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    identity = Recipe.build(RECIPE).identity()
    RunFolder.open(tmp_path, identity, {"encoder": "one"}).__exit__()
    with pytest.raises(RunFolderError, match='encoder: "one" then, "other" now'):
        RunFolder.open(tmp_path, identity, {"encoder": "other"})


def test_speed_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    killed.run(tmp_path, Recipe.build(RECIPE))
    killed.run(tmp_path, Recipe.build({**RECIPE, "batch_size": 3, "workers": 1}))


def test_a_second_process_is_locked_out(tmp_path: Path) -> None:
    identity = Recipe.build(RECIPE).identity()
    with (
        RunFolder.open(tmp_path, identity, {}),
        pytest.raises(RunFolderError, match="in use by another process"),
    ):
        RunFolder.open(tmp_path, identity, {})


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(RunFolderError, match="not empty and not a run folder"):
        RunFolder.open(tmp_path, {}, {})


def write_or_fail(path: Path, failure: Exception) -> None:
    with atomic(path) as file:
        file.write(b"half")
        raise failure


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_or_fail(tmp_path / "file", ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*No space left on device; make room"):
        write_or_fail(tmp_path / "file", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == []
