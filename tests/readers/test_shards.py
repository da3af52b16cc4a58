import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from clipsieve.readers.shards import Cut, Limits, Neighbours, grouped, items, shards


def one_row_each(count: int, size: int = 1) -> np.ndarray:
    return items(np.arange(1, count + 1) * size, 0)


def rows_of(groups: np.ndarray) -> list[int]:
    return groups[:, 1].tolist()


def test_the_last_two_groups_are_evened_out() -> None:
    limits = Limits(rows=4)
    assert rows_of(grouped([one_row_each(4)], limits)) == [4]
    assert rows_of(grouped([one_row_each(5)], limits)) == [2, 3]
    assert rows_of(grouped([one_row_each(9)], limits)) == [4, 2, 3]
    assert rows_of(grouped([one_row_each(0)], limits)) == []


def test_bytes_bound_a_group_and_a_larger_sample_stands_alone() -> None:
    assert rows_of(grouped([one_row_each(6, size=10)], Limits(rows=100, bytes=20))) == [2, 2, 2]
    assert rows_of(grouped([one_row_each(3, size=99)], Limits(rows=100, bytes=20))) == [1, 1, 1]


def test_small_files_share_a_shard_and_large_ones_are_split() -> None:
    limits = Limits(rows=4)
    cuts = [
        Cut(path=name, groups=grouped([one_row_each(rows)], limits)) for name, rows in (("a", 1), ("b", 2), ("c", 6))
    ]
    pieces = [[(piece.path, piece.start, piece.stop) for piece in shard.pieces] for shard in shards(cuts, limits)]
    assert pieces == [[("a", 0, 1), ("b", 0, 2)], [("c", 0, 3)], [("c", 3, 6)]]


def test_a_file_kept_apart_begins_a_shard() -> None:
    limits = Limits(rows=4)
    groups = grouped([one_row_each(1)], limits)
    apart = shards([Cut(path="a", groups=groups), Cut(path="b", groups=groups, apart=True)], limits)
    assert [len(shard.pieces) for shard in apart] == [1, 1]


def test_files_meet_only_those_that_may_share_their_shard() -> None:
    limits = Limits(rows=4)
    before = Neighbours(limits)

    def meets(rows: int, *ids: int) -> bool:
        return before.meet(grouped([one_row_each(rows)], limits), set(ids))

    assert not meets(2, 1, 2)
    assert not meets(1, 3)
    assert meets(1, 1)
    assert not meets(1, 2)  # its own shard began with the file before
    assert not meets(4, 5)
    assert not meets(1, 2)  # too far away by now
    assert not meets(9, 2)
    assert not meets(1, 2)  # a file of several groups shares no shard


@example(sizes=[(1, 0), (1, 0), (1, 2)], limits=Limits(rows=2, bytes=1), chunk=1)  # the last one is too large
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40)), max_size=60),
    limits=st.builds(Limits, rows=st.integers(1, 12), bytes=st.integers(1, 60)),
    chunk=st.integers(1, 20),
)
def test_groups_are_whole_bounded_and_independent_of_chunks(
    sizes: list[tuple[int, int]], limits: Limits, chunk: int
) -> None:
    samples = np.array([(i + 1, *size) for i, size in enumerate(sizes)], dtype=np.int64).reshape(-1, 3)
    groups = grouped([samples[i : i + chunk] for i in range(0, len(samples), chunk)], limits)
    assert np.array_equal(groups, grouped([samples], limits))
    start = 0
    for stop, rows, size in groups.tolist():
        assert (rows, size) == tuple(samples[start:stop, 1:].sum(axis=0))
        assert stop - start == 1 or (rows <= limits.rows and size <= limits.bytes)
        start = stop
    assert start == len(samples)
