"""The second pass in other processes, which finish in any order: the same ledger and output, to the byte."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve import dedup
from clipsieve.core import storage
from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout
from clipsieve.core.ranges import RemoteFile
from clipsieve.core.spread import Spread
from clipsieve.dedup import PartitionStore, VectorPartition, cells, partitions
from clipsieve.engines import compared, duplicates, partition_files, select, staging
from clipsieve.engines.compared import Compared, Names
from clipsieve.engines.ledger_columns import ABOUT, LedgerColumns
from clipsieve.engines.partition_files import ImageVectors, PartitionFiles
from clipsieve.errors import OutputError, RunFolderError
from clipsieve.plan import BoundDedup
from clipsieve.runfolder import RunFolder
from tests.dedup.test_semantic import clustered, same
from tests.dedup.test_tiles import Watched
from tests.engines.conftest import Curate
from tests.engines.test_duplicates import CAPTIONS, INTERLEAVED, LISTS, document, turned
from tests.fakes import image_bytes

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Elsewhere:
    """A ``Spread`` that does each item in another process and in any order."""

    pool: ProcessPoolExecutor
    seed: int = 0

    def __call__(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        every = list(items)
        order = random.Random(self.seed).sample(range(len(every)), len(every))
        futures = {place: self.pool.submit(work, every[place]) for place in order}
        for place in range(len(every)):
            yield futures[place].result()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2])  # what is sent may be defined in tests
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            yield Elsewhere(pool)


def captions() -> pa.Table:
    rng = np.random.default_rng(3)
    images = [turned(float(angle)) for angle in rng.uniform(0, 90, 22)]
    images[5] = images[17]
    return rows_of([*images, b"not an image", image_bytes("red")])


def rows_of(images: list[bytes]) -> pa.Table:
    ids = [f"s{number}" for number in range(len(images))]
    return pa.table({"id": ids, "image": images, "caption": ["red"] * len(images)})


def documents() -> pa.Table:
    red, green, blue, white = (image_bytes(colour, sharp=False) for colour in ("red", "green", "blue", "white"))
    parts = [
        *document("a", "one", red, blue),
        *document("b", "two", red, green),
        *document("c", blue),
        *document("d", "x"),
    ]
    return pa.Table.from_pylist([*parts, *document("e", white, "last")], INTERLEAVED_SCHEMA)


def lists() -> pa.Table:
    red, green, blue = (image_bytes(colour, sharp=False) for colour in ("red", "green", "blue"))
    return pa.table({"id": ["a", "b", "c"], "images": [[red, red], [green, red], [blue, green]], "caption": ["x"] * 3})


RECIPES: list[tuple[Callable[[], pa.Table], Layout, list[str], dict[str, Any]]] = [
    (captions, CAPTIONS, ["width in top 60%"], {}),
    (captions, CAPTIONS, ["blur in bottom 70%", "clip_score in top 80%"], {"on_error": "keep"}),
    (captions, CAPTIONS, ["clip_score in top 80%"], {"dedup": {"threshold": 0.99, "keep": "blur"}}),
    (captions, CAPTIONS, [], {"dedup": {"threshold": 0.999, "links": "leader"}, "on_error": "keep"}),
    (captions, CAPTIONS, [], {"dedup": {"threshold": 0.99, "links": "group", "method": "approximate"}}),
    (captions, CAPTIONS, [], {"dedup": "exact"}),
    (captions, CAPTIONS, [], {"dedup": "perceptual"}),
    (documents, INTERLEAVED, ["image_text_ratio in top 90%"], {"dedup": 0.9}),
    (documents, INTERLEAVED, [], {"dedup": {"threshold": 0.9, "unit": "sample"}}),
    (lists, LISTS, [], {"dedup": 0.9}),
    (captions, CAPTIONS, ["width >= 1000"], {"dedup": 0.9}),
]  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    """What a run leaves that its user sees."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ("ledger", "output")
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("table", "layout", "keep", "options"), RECIPES)
def test_the_same_files_as_in_one_process(
    table: Any, layout: Layout, keep: list[str], options: dict[str, Any],
    curate: Curate, elsewhere: Elsewhere, tmp_path: Path,
) -> None:  # fmt: skip
    of_shard = 5 if layout is CAPTIONS else 20
    for name, spread in (("here", None), ("elsewhere", elsewhere)):
        out = tmp_path / name
        curate(table(), layout, *keep, out=out, rows_a_shard=of_shard, write="parquet", spread=spread, **options)

    found = files(tmp_path / "elsewhere")
    assert found == files(tmp_path / "here")
    assert any(name.startswith("ledger") for name in found)
    assert not (tmp_path / "elsewhere" / "staged").exists()


class LostError(Exception):
    """The driver is gone."""


def dies_at(name: str) -> Spread:
    """A ``Spread`` of this process that dies when work of that ``name`` is to be done, after the first item."""

    def spread(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        for number, item in enumerate(items):
            if type(work).__name__ == name and number:
                raise LostError
            yield work(pickle.loads(pickle.dumps(item)))

    return spread


@pytest.mark.parametrize("name", ["ReadCompared", "StorePartition", "CompareTile", "Fetch", "Commit"])
def test_a_second_pass_that_died_elsewhere_is_finished_here(
    name: str, curate: Curate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "FEWEST", 8)
    options: dict[str, Any] = {"dedup": 0.999, "rows_a_shard": 5, "write": "parquet"}
    curate(captions(), CAPTIONS, "blur in bottom 90%", out=tmp_path / "whole", **options)
    with pytest.raises(LostError):
        curate(captions(), CAPTIONS, "blur in bottom 90%", out=tmp_path / "killed", spread=dies_at(name), **options)
    if name == "Commit":
        assert (tmp_path / "killed" / "staged" / "duplicates.parquet").exists()
        monkeypatch.setattr(duplicates, "_search", None)  # it is not searched again

    curate(captions(), CAPTIONS, "blur in bottom 90%", out=tmp_path / "killed", **options)

    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def with_copies(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    return (work(pickle.loads(pickle.dumps(item))) for item in items)


def test_a_run_folder_in_a_store_is_the_same(curate: Curate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "FEWEST", 8)
    remote = RunFolder(storage.place(f"memory://{tmp_path.name}/run"))
    options: dict[str, Any] = {"dedup": 0.999, "rows_a_shard": 5, "write": "parquet"}
    curate(captions(), CAPTIONS, "clip_score in top 90%", out=tmp_path / "run", **options)
    curate(captions(), CAPTIONS, "clip_score in top 90%", out=remote.path, spread=with_copies, **options)

    local = RunFolder(tmp_path / "run")
    assert [storage.read(remote.part("ledger", shard)) for shard in range(5)] == [
        local.part("ledger", shard).read_bytes() for shard in range(5)
    ]
    assert not fsspec.filesystem("memory").find(f"/{tmp_path.name}/run/staged")


def test_a_shard_that_a_lost_attempt_has_committed_is_left_as_it_is(curate: Curate, tmp_path: Path) -> None:
    def doing_all_twice(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        for item in items:
            work(item)
            yield work(item)

    options: dict[str, Any] = {"dedup": 0.999, "rows_a_shard": 5, "write": "parquet"}
    curate(captions(), CAPTIONS, out=tmp_path / "once", **options)
    curate(captions(), CAPTIONS, out=tmp_path / "twice", spread=doing_all_twice, **options)

    assert files(tmp_path / "twice") == files(tmp_path / "once")


@pytest.mark.parametrize(("module", "name"), [(storage, "read"), (staging, "read_table")])
def test_a_retry_whose_shard_is_committed_while_it_reads_takes_that_for_done(
    module: Any, name: str, curate: Curate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt that was taken for dead commits, and removes what is staged, when its retry has begun to read it."""
    options: dict[str, Any] = {"dedup": 0.999, "rows_a_shard": 5, "write": "parquet"}
    curate(captions(), CAPTIONS, out=tmp_path / "whole", **options)
    whole, overtaken = getattr(module, name), []

    def overtaking(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        for item in items:
            if isinstance(work, select.Commit):
                monkeypatch.setattr(module, name, partial(late, partial(work, item)))
            yield work(item)
            monkeypatch.setattr(module, name, whole)

    def late(other_attempt: Callable[[], Any], path: Path) -> Any:
        monkeypatch.setattr(module, name, whole)
        other_attempt()
        assert not path.exists()
        overtaken.append(path)
        return whole(path)

    curate(captions(), CAPTIONS, out=tmp_path / "run", spread=overtaking, **options)

    assert len(overtaken) == 5
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_what_is_staged_and_cannot_be_read_is_no_shard_that_is_done(curate: Curate, tmp_path: Path) -> None:
    def spread(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        for item in items:
            if isinstance(work, select.Commit):
                (tmp_path / "run" / "staged" / "00000" / "rows.parquet").unlink()
            yield work(item)

    options: dict[str, Any] = {"dedup": 0.999, "rows_a_shard": 5, "write": "parquet"}
    with pytest.raises(RunFolderError, match=r"staged/00000 is gone: .*; remove what is left of it and run the same"):
        curate(captions(), CAPTIONS, out=tmp_path / "run", spread=spread, **options)
    shutil.rmtree(tmp_path / "run" / "staged" / "00000")
    curate(captions(), CAPTIONS, out=tmp_path / "run", **options)
    curate(captions(), CAPTIONS, out=tmp_path / "whole", **options)

    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_what_a_commit_raises_elsewhere_is_raised_here(curate: Curate, elsewhere: Elsewhere, tmp_path: Path) -> None:
    table = captions().append_column("width", pa.array(range(24)))
    with pytest.raises(OutputError, match=r"the source has columns named like scores \(width\)"):
        curate(table, CAPTIONS, "width in top 90%", out=tmp_path / "run", spread=elsewhere,
               write={"format": "parquet", "scores": True})  # fmt: skip


def test_a_damaged_search_is_one_line(curate: Curate, tmp_path: Path) -> None:
    options: dict[str, Any] = {"dedup": 0.999, "rows_a_shard": 5, "out": tmp_path / "run"}
    with pytest.raises(LostError):
        curate(captions(), CAPTIONS, spread=dies_at("Commit"), **options)
    (tmp_path / "run" / "staged" / "duplicates.parquet").write_bytes(b"half")

    with pytest.raises(RunFolderError, match=r"duplicates.parquet is damaged.*; remove it and run the same command"):
        curate(captions(), CAPTIONS, **options)


def stamped(found: Path, with_: bytes) -> None:
    table = pq.read_table(found)
    assert table.schema.metadata[duplicates.FORMAT] == duplicates.stamp([5, 5, 5, 5, 3])
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, duplicates.FORMAT: with_}), found)


def of_other_shards(found: Path) -> None:
    stamped(found, duplicates.stamp([5, 5, 5, 4, 4]))


def of_another_version(found: Path) -> None:
    stamped(found, duplicates.stamp([5, 5, 5, 5, 3]).replace(duplicates.VERSION, b"1", 1))


def without_a_column(found: Path) -> None:
    pq.write_table(pq.read_table(found).drop_columns("max_similarity"), found)


@pytest.mark.parametrize("change", [of_other_shards, of_another_version, without_a_column])
def test_a_search_of_another_version_or_other_shards_is_made_again(
    change: Callable[[Path], None], curate: Curate, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"dedup": 0.999, "rows_a_shard": 5, "write": "parquet"}
    curate(captions(), CAPTIONS, out=tmp_path / "whole", **options)
    with pytest.raises(LostError):
        curate(captions(), CAPTIONS, out=tmp_path / "run", spread=dies_at("Commit"), **options)
    change(tmp_path / "run" / "staged" / "duplicates.parquet")

    curate(captions(), CAPTIONS, out=tmp_path / "run", **options)

    assert files(tmp_path / "run") == files(tmp_path / "whole")


def found_file(path: Path, sizes: list[int]) -> tuple[list[pa.Table], list[int]]:
    """What is found for shards of these sizes, read again, and the rows of each row group of the file."""
    every = pa.table({"reason": [f"row {row}" for row in range(sum(sizes))], "removed": [True] * sum(sizes)})
    every = every.replace_schema_metadata({ABOUT: b"{}"})
    starts = np.cumsum([0, *sizes]).tolist()
    shards = (every.slice(start, size) for start, size in zip(starts, sizes, strict=False))
    duplicates.write_found(path, every.schema, shards, sizes)
    about = pq.read_metadata(path)
    with open(path, "rb") as file:
        read = duplicates.FoundFile(path, file, cast(BoundDedup, SimpleNamespace(by=None)), sizes)
        tables = [read.shard(place).table for place in range(len(sizes))]
    assert [table["reason"].to_pylist() for table in tables] == [
        every["reason"].slice(start, size).to_pylist() for start, size in zip(starts, sizes, strict=False)
    ]
    return tables, [about.row_group(group).num_rows for group in range(about.num_row_groups)]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([3, 0, 2, 1, 7, 0], [5, 8]),
        ([1, 1, 0, 1, 1, 1, 0], [4, 1]),
        ([0, 2**20 + 1, 3], [2**20 + 1, 3]),
        ([0, 0], []),
        ([], []),
    ],
)
def test_row_groups_are_of_whole_shards_however_many_or_large(
    sizes: list[int], groups: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "ROWS", 5)
    monkeypatch.setattr(duplicates, "SHARDS", 4)
    tables, of_file = found_file(tmp_path / "found", sizes)

    assert of_file == groups
    assert all(table.schema.metadata[ABOUT] == b"{}" for table in tables)


def test_the_file_of_what_is_found_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    """Each shard of it took 300 bytes and more of the footer alone."""
    tables, of_file = found_file(tmp_path / "found", [1] * 4000)

    assert len(of_file) == 4
    assert pq.read_metadata(tmp_path / "found").serialized_size < 4000
    assert len(pickle.dumps(tables[-1])) < 4000


def test_what_is_found_is_the_same_file_each_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        found_file(tmp_path / name, [3, 0, 2])

    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_shards_are_counted_once_however_many_partitions_are_read_from_them(tmp_path: Path) -> None:
    rows = Watched([np.array([3, 4], dtype=np.int32), np.zeros(0, dtype=np.int32), np.array([0, 5], dtype=np.int32)])
    vectors = ImageVectors(folder=RunFolder(tmp_path), shards=[7, 8, 9], rows=rows)

    located = [vectors.locate(np.array(images)) for images in ([0, 1], [1, 3], [2], [0, 1, 2, 3])]

    assert [[(shard, some.tolist()) for shard, some in one.rows] for one in located] == [
        [(7, [3, 4])],
        [(7, [4]), (9, [5])],
        [(9, [0])],
        [(7, [3, 4]), (9, [0, 5])],
    ]
    assert rows.looked_at == 3 + 6  # all of them once, and those that have some of the images


def approximate(store: PartitionStore, **options: Any) -> dedup.Duplicates:
    rows = clustered(3000)
    of = {"method": "approximate", "units": np.arange(3000) // 2, "against": clustered(3600)[3000:]}
    return dedup.distributed(
        dedup.InMemory(vectors=rows), dedup.digests(rows), 0.95, spread=with_copies, store=store, **of, **options
    )


def test_in_a_store_a_cell_is_read_by_ranges_and_no_partition_more_often_than_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "FEWEST", 700)
    monkeypatch.setattr(cells, "FEWEST", 50)
    monkeypatch.setattr(cells, "NEAREST", 3)
    monkeypatch.setattr(partition_files, "_AT_ONCE", 100)
    here = PartitionFiles(folder=RunFolder(tmp_path / "run"))
    there = PartitionFiles(folder=RunFolder(storage.place(f"memory://{tmp_path.name}/run")))
    whole: Counter[str] = Counter()
    of_ranges: list[int] = []
    load, fetch = storage.load_array, RemoteFile.fetch

    def counted_load(path: Path) -> Any:
        whole[path.name] += 1
        return load(path)

    def counted_fetch(file: RemoteFile, start: int, stop: int) -> bytes:
        of_ranges.append(stop - start)
        return fetch(file, start, stop)

    wanted = approximate(here)
    monkeypatch.setattr(storage, "load_array", counted_load)
    monkeypatch.setattr(RemoteFile, "fetch", counted_fetch)
    found = approximate(there)

    same(found, wanted)
    assert (found.recall, found.method) == (wanted.recall, wanted.method)
    assert len(whole) == 2 * 6  # vectors and numbers of five partitions and one of the earlier data set
    assert max(whole.values()) <= 5  # centres, assignment, recall twice, those that are linked
    assert sum(of_ranges) == 3 * 3600 * (4 * 64 + 32)
    assert len(of_ranges) <= 72 * 6


def test_rows_of_a_partition_are_those_of_the_whole(tmp_path: Path) -> None:
    store = PartitionFiles(folder=RunFolder(tmp_path))
    numbers = np.arange(6)
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    of = {"classes": numbers, "rank": numbers + 10, "unit": numbers + 20, "other": numbers - 1}
    store.put(3, VectorPartition(vectors=vectors, **of))

    some, whole = store.get(3, np.array([4, 1])), store.get(3).take(np.array([4, 1]))

    for name in ("vectors", "classes", "rank", "unit", "other"):
        assert np.array_equal(getattr(some, name), getattr(whole, name))
    assert some.rank.tolist() == [14, 11]


@dataclass
class LookedUp:
    """Numbers that count how many of them are looked up, and cannot be copied as a whole."""

    numbers: np.ndarray
    times: int = 0

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        self.times += len(places)
        return self.numbers[places]


def test_for_a_shard_no_more_numbers_are_looked_up_than_it_has_images(tmp_path: Path) -> None:
    numbers, names = LookedUp(np.arange(100, 106)), Names(tmp_path)
    names.add(pa.array(list("abcdef")))
    of: Any = {
        "by": SimpleNamespace(by=SimpleNamespace(method="exact")),
        "rows": [np.arange(2), np.arange(0), np.arange(4)],
        "numbers": numbers,
    }
    images = Compared(shards=range(3), units=np.arange(6), keys=None, content=None, names=names, **of)
    found = dedup.exact(["x", "y", "x", None, "z", "y"])

    tables = list(LedgerColumns(compared=images, found=found, earlier=None).shards())

    groups = [table["duplicate_group"].to_pylist() for table in tables]
    assert groups == [[100, 101], [], [100, None, None, 101]]
    assert numbers.times == 6


def test_a_name_that_comes_too_late_is_not_lost_silently(tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.add(pa.array(["a", "b"]))
    assert names.take(np.array([1, -1])).to_pylist() == ["b", None]

    with pytest.raises(ValueError, match="before any of them is taken"):
        names.add(pa.array(["c"]))


def test_what_a_cluster_handed_out_is_copied() -> None:
    memory = np.zeros(8, dtype=np.uint64)
    hashes = pa.Array.from_buffers(pa.uint64(), 8, [None, pa.py_buffer(memory)])

    copies = [compared._copy(memory), compared._copy(hashes), compared._copy(None)]
    memory[:] = 1

    assert [None if one is None else one.tolist() for one in copies] == [[0] * 8, [0] * 8, None]


def test_a_run_folder_is_held_by_who_opened_it_alone(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", {}, {}) as folder:
        copy = pickle.loads(pickle.dumps(folder))
        copy.__exit__()

        with pytest.raises(RunFolderError, match="is in use by another process"):
            RunFolder.open(tmp_path / "run", {}, {})
