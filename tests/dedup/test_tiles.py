"""The search by many workers finds what the search in one process finds, in every field."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from clipsieve.core.spread import Spread, in_threads
from clipsieve.dedup import (  # fmt: skip
    Duplicates,
    InMemory,
    Ranges,
    VectorPartition,
    cells,
    clusters,
    digests,
    distributed,
    partitions,
    search,
    semantic,
    sketch,
    tiles,
)
from tests.dedup.reference import Case
from tests.dedup.test_semantic import THRESHOLDS, clustered, same, vectors

T = TypeVar("T")
R = TypeVar("R")


class Table:
    """A ``PartitionStore`` in memory."""

    def __init__(self) -> None:
        self.partitions: dict[int, VectorPartition] = {}
        self.order: dict[int, np.ndarray] = {}

    def put(self, number: int, partition: VectorPartition) -> None:
        self.partitions[number] = partition

    def get(self, number: int, rows: Any = None) -> VectorPartition:
        whole = self.partitions[number]
        return whole if rows is None else whole.take(rows)

    def put_ordered(self, number: int, partition: VectorPartition, rows: np.ndarray) -> None:
        self.order[number] = rows

    def get_ordered(self, ranges: Ranges, dim: int) -> VectorPartition:
        every = []
        for number, start, rows in ranges:
            assert np.array_equal(self.order[number][start : start + len(rows)], rows)
            every.append(self.get(number, rows))
        found = VectorPartition.concat(every)
        assert found.vectors.shape == (len(ranges.rows), dim)
        return found


def serially(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    return map(work, items)


def twice(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """As a cluster may: what was done is lost and done again, and nobody sees what another one changed."""
    for item in items:
        pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(item)))))
        yield pickle.loads(pickle.dumps(work(item)))


def by_workers(rows: np.ndarray, threshold: float, spread: Spread = serially, **options: Any) -> Duplicates:
    return distributed(
        InMemory(vectors=rows), digests(rows), threshold, spread=spread, store=Table(), **{"method": "exact", **options}
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions and blocks so small that a handful of images makes many tiles, and each goes through all there is."""
    monkeypatch.setattr(partitions, "FEWEST", 3)
    monkeypatch.setattr(partitions, "MOST", 5)
    monkeypatch.setattr(tiles, "SMALL", 0)
    for module in (tiles, search):
        monkeypatch.setattr(module, "BLOCK", 3)
        monkeypatch.setattr(module, "STRIP", 6)
    monkeypatch.setattr(search, "QUEUE", 5)
    monkeypatch.setattr(search, "CROWDED", 2)
    monkeypatch.setattr(clusters, "SIZE", 4)
    monkeypatch.setattr(sketch, "CHOICES", (1, 2))
    monkeypatch.setattr(sketch, "CANDIDATE_COST", 0)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("spread", [in_threads, twice])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=vectors(), threshold=THRESHOLDS)
def test_equals_the_search_in_one_process(
    case: tuple[Case, np.ndarray, np.ndarray], threshold: float, spread: Spread
) -> None:
    asked, ours, others = case
    options: dict[str, Any] = {"order": asked.order, "units": asked.units, "links": asked.links}
    options["against"] = others if len(others) else None

    found, wanted = by_workers(ours, threshold, spread, **options), semantic(ours, threshold, method="exact", **options)

    same(found, wanted)
    assert (found.method, found.recall) == (wanted.method, wanted.recall)


@pytest.mark.parametrize("small", [0, tiles.SMALL])
@pytest.mark.parametrize(("size", "spread"), [(700, serially), (1000, in_threads), (5000, serially)])
def test_the_size_of_tiles_changes_nothing(
    size: int, spread: Spread, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clustered(3000)
    rows[::100] = rows[1]
    monkeypatch.setattr(partitions, "FEWEST", size)
    monkeypatch.setattr(tiles, "SMALL", small)

    same(by_workers(rows, 0.95, spread), semantic(rows, 0.95))


def test_what_is_known_already_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image hears of one from its own partition, and from another partition only of one that is no farther."""
    monkeypatch.setattr(partitions, "FEWEST", 500)
    sent = []

    def counted(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        for result in map(work, items):
            if isinstance(result, tiles.TileResult):
                sent.append(len(result.classes))
            yield result

    found = by_workers(clustered(3000), 0.95, counted)

    assert len(found.removed) == 3000
    assert len(sent) == 21
    assert sum(sent[:6]) == 3000
    assert sum(sent[6:]) < 15 * 1000 / 3


@pytest.mark.parametrize("against", [None, clustered(3600)[3000:]], ids=["alone", "against"])
def test_overlapping_cells_find_nearly_all_and_say_how_much(
    against: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clustered(3000)
    monkeypatch.setattr(partitions, "FEWEST", 700)
    monkeypatch.setattr(cells, "FEWEST", 50)
    monkeypatch.setattr(cells, "NEAREST", 3)
    options: dict[str, Any] = {"links": "any", "units": np.arange(3000) // 2, "against": against}
    every = semantic(rows, 0.95, **options)
    some = by_workers(rows, 0.95, twice, method="approximate", **options)

    assert some.method == "vectors, approximate search"
    assert some.recall is not None
    assert some.recall >= 0.99
    assert (some.removed <= every.removed).all()
    assert (some.max_similarity <= every.max_similarity).all()
    assert 0.9 < (some.nearest == every.nearest).mean() < 1


def test_where_each_would_be_looked_for_in_every_cell_all_are_compared() -> None:
    rows = clustered(900)
    found = by_workers(rows, 0.95, method="approximate")

    same(found, semantic(rows, 0.95, method="exact"))
    assert (found.method, found.recall) == ("vectors, approximate search", 1)


def test_equal_rows_have_equal_digests_and_no_others() -> None:
    rows = np.array([[1, 0], [1, -0.0], [2, 0], [0, 0], [np.nan, 1], [1, 0]], dtype=np.float32)

    one, same_one, other, *unusable, last = partitions.labels(digests(rows)).tolist()

    assert one == same_one == last
    assert len({one, other, -1}) == 3
    assert unusable == [-1, -1]


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_nothing_to_compare(n: int, method: str, tmp_path: Path) -> None:
    found = by_workers(np.ones((n, 8), dtype=np.float32), 0.9, method=method, scratch=tmp_path)

    assert found.removed.tolist() == [False] * n
    assert found.nearest.tolist() == [-1] * n
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_where_no_image_has_a_vector_there_is_nothing_to_find_in_an_earlier_data_set(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "FEWEST", 50)
    monkeypatch.setattr(cells, "NEAREST", 3)
    options: dict[str, Any] = {"method": method, "against": clustered(400)}
    rows = np.full((3, options["against"].shape[1]), np.nan, dtype=np.float32)

    found = by_workers(rows, 0.9, **options)

    same(found, semantic(rows, 0.9, **options))
    assert found.recall == (None if method == "approximate" else 1)


def test_an_earlier_data_set_of_other_dimensions_is_told_as_in_one_process() -> None:
    rows, against = np.ones((3, 4), dtype=np.float32), np.ones((2, 5), dtype=np.float32)
    for search_of in (semantic, by_workers):
        with pytest.raises(ValueError, match="vectors have 4 dimensions, those of against 5"):
            search_of(rows, 0.9, against=against)


def test_a_cell_without_members_is_none_to_compare() -> None:
    """Of two partitions of two and one classes, in three cells: the second cell is only visited."""
    first = assigned([0, 1, 0, 1], [0, 2, 2, 2, 4, 4, 4])
    other = assigned([0, 0], [0, 0, 0, 0, 1, 2, 2])
    every = cells.Cells.gather(iter([first, other]))

    chosen = every.occupied()
    (of_first, members), (of_last, last) = every.each(chosen)

    assert chosen == [0, 2]
    assert [(number, start, some.tolist()) for number, start, some in of_first] == [(0, 0, [0, 1])]
    assert [(number, start, some.tolist()) for number, start, some in of_last] == [(1, 1, [0])]
    assert (members.tolist(), last.tolist()) == ([True, True], [True])


def assigned(rows: list[int], ends: list[int]) -> cells.Assigned:
    return cells.Assigned(rows=np.array(rows, dtype=np.int32), ends=np.array(ends, dtype=np.int32))


def test_members_come_before_visitors_in_each_partition_of_a_cell() -> None:
    first = assigned([2, 0, 1], [0, 1, 3])
    other = assigned([0, 1, 2], [0, 2, 3])

    ((ranges, members),) = cells.Cells.gather([first, other]).each([0])

    assert ranges.rows.tolist() == [2, 0, 1, 0, 1, 2]
    assert members.tolist() == [True, False, False, True, True, False]
    assert ranges.places().tolist() == [0, 1, 2, 0, 1, 2]


class Watched(list[Any]):
    """Counts how often one of them is looked at."""

    def __init__(self, items: Iterable[Any]) -> None:
        super().__init__(items)
        self.looked_at = 0

    def __getitem__(self, place: Any) -> Any:
        self.looked_at += 1
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[Any]:
        self.looked_at += len(self)
        return super().__iter__()


def test_for_a_cell_no_partition_is_looked_at_that_has_nothing_in_it() -> None:
    """Of 40 partitions each has one class, in a cell of its own."""
    every = cells.Cells.gather(
        assigned([0], np.repeat([0, 1], [2 * cell + 1, 80 - 2 * cell]).tolist()) for cell in range(40)
    )
    watched = cells.Cells(rows=Watched(every.rows), ends=every.ends)

    found = [(ranges.numbers.tolist(), members.tolist()) for ranges, members in watched.each(watched.occupied())]

    assert found == [([cell], [True]) for cell in range(40)]
    assert watched.rows.looked_at == 40


def test_progress_ends_at_its_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "FEWEST", 50)
    monkeypatch.setattr(cells, "NEAREST", 3)
    heard: list[tuple[int, int]] = []

    by_workers(clustered(900), 0.95, method="approximate", progress=lambda done, total: heard.append((done, total)))

    assert heard[-1][0] == heard[-1][1] == len(heard)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 90}, "threshold is a cosine between -1 and 1, not 90"),
        ({"links": "all"}, "links is one of any, leader, group, not 'all'"),
        ({"method": "faiss"}, "method is 'auto', 'exact' or 'approximate', not 'faiss'"),
    ],
)
def test_says_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        by_workers(np.ones((4, 2), dtype=np.float32), **{"threshold": 0.9, **options})
