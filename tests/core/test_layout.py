from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout, embedded, has_text_rows, keep_rows, parts, sample_runs

CAPTIONS = Layout(kind="captions", image="image", texts=("caption",), sample_id="id")
LISTS = Layout(kind="lists", image="images", texts=("texts",))
INTERLEAVED = Layout(kind="interleaved")


def keep(*values: int) -> np.ndarray:
    return np.array(values, dtype=bool)


def documents(*rows: tuple[str | None, int, str, str | None]) -> pa.Table:
    """Rows of ``sample_id, position, modality, content``; the content of an image is its bytes."""
    return pa.Table.from_pylist(
        [
            {
                "sample_id": name,
                "position": position,
                "modality": modality,
                "text_content": content if modality == "text" else None,
                "binary_content": content.encode() if content and modality == "image" else None,
            }
            for name, position, modality, content in rows
        ],
        schema=INTERLEAVED_SCHEMA,
    )


TWO_DOCUMENTS = documents(
    ("a", -1, "metadata", None),
    ("a", 0, "image", "A"),
    ("a", 1, "text", "x"),
    ("a", 2, "image", "B"),
    ("b", 0, "text", " "),
    ("b", 1, "image", "C"),
)


def test_a_caption_row_is_a_sample_with_an_image() -> None:
    table = pa.table({"id": [7, 8, None], "image": ["a.jpg", None, "/c.jpg"], "caption": ["x", " ", None]})
    found = parts(table, CAPTIONS, origins=((0, "/data/rows.jsonl"), (2, "/other/rows.jsonl")))
    assert found.sample_ids == ["7", "8", None]
    assert [image.path for image in found.images] == ["/data/a.jpg", None, "/c.jpg"]
    assert found.images[1].error == "no image: the cell is null"
    assert (found.texts, found.text_samples.tolist()) == (["x"], [0])


@pytest.mark.parametrize(
    ("root", "path"), [(None, "memory://data/sub/a.jpg"), ("", "sub/a.jpg"), ("/images", "/images/sub/a.jpg")]
)
def test_relative_paths_are_relative_to_the_file_or_to_the_root(root: str | None, path: str) -> None:
    layout = Layout(kind="captions", image="image", root=root)
    found = parts(pa.table({"image": ["sub/a.jpg"]}), layout, origins=((0, "memory://data/rows.csv"),))
    assert found.images[0].path == path


def test_a_list_row_has_as_many_images_as_its_list() -> None:
    table = pa.table({"images": [["a", "b"], [], None, ["c"]], "texts": [["x", ""], None, ["y"], []]})
    found = parts(table, LISTS, errors={2: "malformed"})
    assert found.image_samples.tolist() == [0, 0, 2, 3]
    assert found.image_numbers.tolist() == [0, 1, 0, 0]
    assert found.images[2].error == "malformed"
    assert (found.texts, found.text_samples.tolist()) == (["x", "y"], [0, 2])


def test_a_document_is_a_run_of_rows() -> None:
    found = parts(TWO_DOCUMENTS, INTERLEAVED)
    assert found.sample_ids == ["a", "b"]
    assert found.sample_rows.tolist() == [0, 4]
    assert found.row_samples.tolist() == [0, 0, 0, 0, 1, 1]
    assert [image.data for image in found.images] == [b"A", b"B", b"C"]
    assert found.image_rows.tolist() == [1, 3, 5]
    assert found.image_numbers.tolist() == [0, 1, 0]
    assert (found.texts, found.text_samples.tolist()) == (["x"], [0])
    assert has_text_rows(TWO_DOCUMENTS, INTERLEAVED, found).tolist() == [True, True]


def test_no_rows_have_no_parts() -> None:
    for layout, table in ((INTERLEAVED, documents()), (CAPTIONS, pa.table({"image": [], "caption": [], "id": []}))):
        found = parts(table, layout)
        assert (found.sample_ids, found.images, found.texts) == ([], [], [])
        assert keep_rows(table, layout, found, keep(), keep())[0].num_rows == 0


def test_sample_runs_number_adjacent_equal_ids() -> None:
    assert sample_runs(pa.array(["a", "a", "b", None, None, "a"])).tolist() == [0, 0, 1, 2, 2, 3]


def test_a_dropped_image_leaves_its_document_and_positions_close_up() -> None:
    found = parts(TWO_DOCUMENTS, INTERLEAVED)
    table, kept = keep_rows(TWO_DOCUMENTS, INTERLEAVED, found, keep(0, 1, 0), keep(1, 1))
    assert table.equals(
        documents(("a", -1, "metadata", None), ("a", 0, "text", "x"), ("a", 1, "image", "B"), ("b", 0, "text", " "))
    )
    assert kept.image_rows.tolist() == [2]
    assert kept.sample_rows.tolist() == [0, 3]


def test_documents_of_one_id_that_become_neighbours_stay_two() -> None:
    table = documents(("a", 0, "image", "1"), ("b", 0, "image", "2"), ("a", 0, "image", "3"), ("a", 1, "text", "x"))
    found = parts(table, INTERLEAVED)
    left, kept = keep_rows(table, INTERLEAVED, found, keep(1, 0, 1), keep(1, 0, 1))
    assert left.column("position").to_pylist() == [0, 0, 1]
    assert kept.sample_rows.tolist() == [0, 1]


def test_a_dropped_sample_takes_its_images_along() -> None:
    found = parts(TWO_DOCUMENTS, INTERLEAVED)
    table, kept = keep_rows(TWO_DOCUMENTS, INTERLEAVED, found, keep(1, 1, 1), keep(0, 1))
    assert table.equals(documents(("b", 0, "text", " "), ("b", 1, "image", "C")))
    assert (kept.sample_ids, kept.image_rows.tolist(), kept.texts) == (["b"], [1], [])


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.string()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ],
)
def test_a_list_is_shortened_and_what_keeps_its_images_is_untouched(kind: pa.DataType) -> None:
    rows = [["skipped"], ["a", "b", "c"], None, [], None, ["d"], ["e"]]
    table = pa.table({"images": pa.array(rows, pa.list_(pa.string())).cast(kind), "n": range(7)})[1:]
    found = parts(table, Layout(kind="lists", image="images"), errors={3: "malformed"})
    assert found.image_rows.tolist() == [0, 0, 0, 3, 4, 5]
    left, kept = keep_rows(
        table, Layout(kind="lists", image="images"), found, keep(1, 0, 1, 1, 0, 1), keep(1, 1, 1, 1, 1, 0)
    )
    assert left.schema.equals(table.schema)
    assert left.to_pylist() == [
        {"images": ["a", "c"], "n": 1},
        {"images": None, "n": 2},
        {"images": [], "n": 3},
        {"images": None, "n": 4},
        {"images": [], "n": 5},
    ]
    assert kept.image_numbers.tolist() == [0, 1, 0]


def test_single_images_read_as_lists_become_null() -> None:
    table = pa.table({"images": ["a", "b", None]})
    layout = Layout(kind="lists", image="images")
    left, _ = keep_rows(table, layout, parts(table, layout), keep(0, 1), keep(1, 1, 1))
    assert left.column("images").to_pylist() == [None, "b", None]


MODALITIES = st.sampled_from(["text", "image", "metadata", "video"])


@given(st.lists(st.tuples(st.sampled_from("abc"), MODALITIES, st.booleans()), max_size=30), st.integers(0, 2**9))
def test_what_is_kept_has_the_parts_of_what_is_read_anew(rows: list[tuple[str, str, bool]], samples: int) -> None:
    table = documents(*((name, i, modality, str(i)) for i, (name, modality, _) in enumerate(rows)))
    found = parts(table, INTERLEAVED)
    keep_images = np.array([rows[row][2] for row in found.image_rows.tolist()], dtype=bool)
    keep_samples = np.array([samples >> (s % 9) & 1 for s in range(len(found.sample_ids))], dtype=bool)
    # As the engine does: a sample goes when nothing is left of it.
    left = np.ones(table.num_rows, dtype=bool)
    left[found.image_rows[~keep_images]] = False
    keep_samples &= np.bincount(found.row_samples[left], minlength=len(keep_samples)) > 0
    kept_table, kept = keep_rows(table, INTERLEAVED, found, keep_images, keep_samples)
    expected = [
        (name, str(i))
        for i, (name, modality, keeps) in enumerate(rows)
        if keep_samples[found.row_samples[i]] and (keeps or modality != "image")
    ]
    assert kept_table.column("sample_id").to_pylist() == [name for name, _ in expected]
    assert [image.data for image in kept.images] == [
        cell for cell, kind in zip(*_columns(kept_table, "binary_content", "modality"), strict=True) if kind == "image"
    ]
    assert len(kept.sample_rows) == len(kept.sample_ids) == int(keep_samples.sum())
    for sample in range(len(kept.sample_ids)):
        own = kept_table.filter(pa.array(kept.row_samples == sample))
        positions = [p for p, m in zip(*_columns(own, "position", "modality"), strict=True) if m != "metadata"]
        assert positions == list(range(len(positions)))


def _columns(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table.column(name).to_pylist() for name in names]


DROPPING = Layout(kind="interleaved", invalid_rows="drop")


def test_invalid_rows_are_surplus_and_an_image_in_one_cannot_be_read() -> None:
    table = documents(
        ("a", -1, "metadata", None),
        ("a", 0, "metadata", None),
        ("a", 1, "text", "x"),
        ("a", -1, "text", "before"),
        ("a", 2, "video", None),
        ("a", -3, "image", "A"),
        ("a", 4, "table", None),
    )
    found = parts(table, DROPPING)
    assert found.texts == ["x"]
    assert found.surplus is not None
    assert np.flatnonzero(found.surplus).tolist() == [1, 3, 4, 5]
    assert [image.error for image in found.images] == ["invalid row: an image at position -3"]
    rows, _ = keep_rows(table, DROPPING, found, keep(0), keep(1))
    assert rows["modality"].to_pylist() == ["metadata", "text", "table"]
    assert rows["position"].to_pylist() == [-1, 0, 1]


def test_invalid_rows_stay_when_nothing_else_is_said() -> None:
    found = parts(documents(("a", -3, "image", "A"), ("a", 0, "video", None)), INTERLEAVED)
    assert found.surplus is None
    assert [image.error for image in found.images] == [None]


def test_embedded_bytes_stand_in_the_rows_of_their_images() -> None:
    table = documents(("a", 0, "image", None), ("a", 1, "text", "x"), ("a", 2, "image", "B"), ("a", 3, "image", None))
    whole = embedded(table, parts(table, INTERLEAVED), [b"A", b"other", None], {2: "missing: no such file"})
    assert whole["binary_content"].to_pylist() == [b"A", None, b"B", None]
    assert whole["materialize_error"].to_pylist() == [None, None, None, "missing: no such file"]


def test_the_query_of_a_url_is_no_part_of_the_folder_of_its_images() -> None:
    origins = [
        (0, "https://host/d/rows.jsonl?X-Sig=a/b"),
        (1, "https://host/e/rows.jsonl#a/b"),
        (2, "/d/a?b/rows.jsonl"),
    ]

    found = parts(pa.table({"image": ["a.png"] * 3}), Layout(kind="captions"), origins)

    assert [image.path for image in found.images] == ["https://host/d/a.png", "https://host/e/a.png", "/d/a?b/a.png"]
