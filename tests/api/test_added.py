"""Columns beside a ledger: row for row, all of one call or none, the ledger itself untouched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from clipsieve.api.added import add_columns, ledger_part, whole_ledger
from clipsieve.core.contracts import Piece, Shard, SourceFile
from clipsieve.errors import RunFolderError
from clipsieve.runfolder import RunFolder, write_table

SHARDS = 3


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """A finished run of three shards of two rows."""
    with RunFolder.open(tmp_path / "run", {}, {}) as run:
        found = [Shard(number=n, pieces=(Piece(path="x", start=n, stop=n + 1),)) for n in range(SHARDS)]
        run.shards([SourceFile(path="x", size=1, version="1")], found)
        for shard in range(SHARDS):
            write_table(run.part("ledger", shard), pa.table({"row": [0, 1], "label": ["own", "own"]}))
    with RunFolder.reopen(tmp_path / "run") as run:
        yield run


def parts(value: str, *, fail_at: int = SHARDS) -> Iterator[tuple[int, pa.Table]]:
    for shard in range(SHARDS):
        if shard == fail_at:
            raise KeyboardInterrupt
        yield shard, pa.table({"label": [f"{value}{shard}0", f"{value}{shard}1"], "more": [shard, shard]})


def labels(folder: RunFolder) -> list[str]:
    found: list[str] = whole_ledger(folder)["label"].to_pylist()
    return found


def test_they_stand_row_for_row_in_place_of_those_of_their_name(folder: RunFolder) -> None:
    before = {path: path.read_bytes() for path in (folder.path / "ledger").iterdir()}
    add_columns(folder, "label", parts("a"))
    assert whole_ledger(folder).column_names == ["row", "label", "more"]
    assert labels(folder) == ["a00", "a01", "a10", "a11", "a20", "a21"]
    assert ledger_part(folder, 1)["label"].to_pylist() == ["a10", "a11"]
    assert before == {path: path.read_bytes() for path in (folder.path / "ledger").iterdir()}


def test_a_second_call_replaces_the_first(folder: RunFolder) -> None:
    add_columns(folder, "label", parts("a"))
    add_columns(folder, "label", ((shard, table.drop_columns("more")) for shard, table in parts("b")))
    assert whole_ledger(folder).column_names == ["row", "label"]
    assert labels(folder)[-1] == "b21"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_interrupted_while_writing_the_old_ones_stay(folder: RunFolder, shard: int) -> None:
    add_columns(folder, "label", parts("a"))
    with pytest.raises(KeyboardInterrupt):
        add_columns(folder, "label", parts("b", fail_at=shard))
    assert labels(folder) == ["a00", "a01", "a10", "a11", "a20", "a21"]
    assert [path.name for path in (folder.path / "added").iterdir()] == ["label"]


def test_killed_at_any_rename_there_is_no_mix_and_the_next_call_mends_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_columns(folder, "label", parts("a"))
    replace, rmtree = os.replace, "clipsieve.api.added.shutil.rmtree"
    seen = set()
    for stop in range(SHARDS + 3):
        left = iter(range(stop))

        def dying(source: Path, target: Path, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise MemoryError  # and nothing is tidied up: the process is gone
            replace(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", dying)
            patched.setattr(rmtree, lambda *_, **__: None)
            with suppress(MemoryError):
                add_columns(folder, "label", parts("b"))
        seen.add("".join(sorted({label[0] for label in labels(folder)})))
        folder.__exit__()
        folder = RunFolder.reopen(folder.path)
        assert all(path.name == "label" for path in (folder.path / "added").iterdir())
        add_columns(folder, "label", parts("a"))
    assert seen == {"a", "b", "o"}  # old, new, or the run's own


def test_a_damaged_or_missing_part_is_one_line(folder: RunFolder) -> None:
    add_columns(folder, "label", parts("a"))
    part = folder.path / "added" / "label" / "00001.parquet"
    part.write_bytes(b"damaged")
    with pytest.raises(RunFolderError, match=r"00001\.parquet is damaged .*; remove .*added/label and add its columns"):
        whole_ledger(folder)
    part.unlink()
    with pytest.raises(RunFolderError, match=r"00001\.parquet is gone"):
        whole_ledger(folder)
    write_table(part, pa.table({"label": ["one row"]}))
    with pytest.raises(RunFolderError, match=r"00001\.parquet is damaged"):
        whole_ledger(folder)


def test_an_unfinished_run_is_not_reopened(folder: RunFolder) -> None:
    folder.part("ledger", 1).unlink()
    folder.__exit__()
    with pytest.raises(RunFolderError, match=r"is not finished \(2 of 3 shards are done\)"):
        RunFolder.reopen(folder.path)


def test_a_run_in_use_is_not_reopened(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match="in use by another process"):
        RunFolder.reopen(folder.path)
