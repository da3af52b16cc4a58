"""Rows in memory: the same scores and verdicts as a run, with images of any kind in the cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

import clipsieve
from clipsieve.core.contracts import SourceCounts
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.errors import ColumnError, CountsError, UsageError
from clipsieve.readers.memory import Memory
from tests.fakes import ColourEncoder, image_bytes

RED, BLUE = image_bytes("red"), image_bytes("blue")


def curate(rows: Any, **options: Any) -> clipsieve.Curated:
    return clipsieve.curate(rows, encoder=ColourEncoder(), **options)


def test_what_stays_and_why_the_rest_does_not() -> None:
    rows = pa.table({"image": [RED, BLUE, b"?", RED], "caption": ["red", "red", "red", "blue"], "n": [0, 1, 2, 3]})
    curated = curate(rows, keep="clip_score >= 0.5")
    assert curated.rows.equals(rows.take([0]))
    assert curated.kept.tolist() == [0]
    assert curated.ledger["verdict"].to_pylist() == ["kept", "dropped", "failed", "dropped"]
    assert curated.ledger["reason"].to_pylist()[1].startswith("clip_score 0.18")
    assert (curated.counts.images.kept, curated.counts.images.dropped, curated.counts.images.failed) == (1, 2, 1)


def test_an_image_may_be_a_path_bytes_a_mapping_a_pillow_image_or_an_array(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    pixels = np.asarray(Image.open(tmp_path / "red.png"))
    paths = ["red.png", Path("red.png"), {"path": "red.png"}]
    cells = [
        *paths,
        {"path": Path("red.png")},
        RED,
        bytearray(RED),
        memoryview(RED),
        {"bytes": RED},
        Image.fromarray(pixels),
        pixels,
    ]
    curated = curate({"image": cells}, scores={"blur": {}}, root=str(tmp_path))
    assert len(set(curated.ledger["blur"].to_pylist())) == 1
    assert curated.counts.images.kept == len(cells)


def test_a_data_frame_is_columns_by_their_places() -> None:
    frame = pd.DataFrame({"image": [Image.new("RGB", (9, 9)), None, RED], "n": [1, 2, 3]}, index=[7, 1, 0])
    curated = curate(frame, keep="blur >= 10")
    assert curated.ledger["verdict"].to_pylist() == ["dropped", "failed", "kept"]
    assert frame.iloc[curated.kept]["n"].tolist() == [3]


def test_an_image_that_cannot_be_used_is_a_verdict() -> None:
    cells = [Image.new("F", (3, 3)), np.zeros((3, 3), np.uint8), None, "missing.png", 7, "\udc80.png", {"path": 5}]
    curated = curate({"image": cells}, keep="blur >= 1")
    assert curated.ledger["error"].to_pylist() == [
        "undecodable: 32-bit pixels (mode F) without a known white",
        "undecodable: an array of uint8 and shape (3, 3), not (h, w, 3) uint8",
        "no image: the cell is null",
        "missing: no such file",
        "no image: the cell holds int, neither a path nor bytes",
        "no image: a path that is not text in UTF-8",
        "no image: the cell's path is int",
    ]
    assert curated.ledger["verdict"].to_pylist() == ["failed"] * 7


@pytest.mark.parametrize("cells", [["red.png", RED], [RED, "red.png"], [None, "red.png", float("nan")]])
def test_paths_and_bytes_may_stand_in_one_column(tmp_path: Path, cells: list[Any]) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    curated = curate({"image": cells}, scores={"blur": {}}, root=str(tmp_path))
    assert curated.counts.images.kept == sum(isinstance(cell, (str, bytes)) for cell in cells)


def test_lists_of_images_are_told_from_the_cells() -> None:
    rows = {"images": [[Image.new("RGB", (8, 8), "red"), BLUE], [RED, RED], []], "text": ["a", "b", "c"]}
    curated = curate(rows, scores={"pair_similarity": {}})
    assert curated.ledger["pair_similarity"].to_pylist() == [[0.08976], [], [1.0], [], []]
    assert curated.ledger["row"].to_pylist() == [0, 0, 1, 1, 2]


def test_vectors_stand_beside_the_rows_of_the_ledger() -> None:
    curated = curate({"image": [RED, b"?", BLUE]}, vectors=True)
    assert curated.vectors is not None
    assert curated.vectors.shape == (3, 3)
    assert np.isnan(curated.vectors).all(axis=1).tolist() == [False, True, False]


def documents(*rows: tuple[str, int, str, Any]) -> pa.Table:
    cells = [
        {
            "sample_id": name,
            "position": position,
            "modality": modality,
            "text_content": content if isinstance(content, str) else None,
            "binary_content": content if isinstance(content, bytes) else None,
        }
        for name, position, modality, content in rows
    ]
    return pa.Table.from_pylist(cells, schema=INTERLEAVED_SCHEMA)


def test_every_input_row_has_a_reason_or_stays() -> None:
    rows = documents(
        ("a", 2, "image", RED),
        ("a", 0, "text", "red"),
        ("a", 1, "image", BLUE),
        ("a", -5, "text", "before"),
        ("b", 0, "image", b"?"),
        ("b", -1, "metadata", None),
    )
    curated = curate(rows, keep="clip_score >= 0.5", invalid_rows="drop")
    assert curated.kept.tolist() == [0, 1]
    assert curated.reasons[2:] == [
        "clip_score 0.18664 < 0.5",
        "invalid row",
        "undecodable: not an image of a known format",
        "nothing left",
    ]
    assert curated.ledger["row"].to_pylist() == [2, 0, 4]
    assert curated.rows["position"].to_pylist() == [0, 1]


@pytest.mark.parametrize("count", ["source", "kept"])
def test_an_image_in_an_invalid_row_is_not_counted(count: str) -> None:
    rows = documents(("a", -3, "image", RED), ("a", 0, "text", "two words"), ("a", 1, "image", RED))
    scores = {"image_text_ratio": {"count": count}}
    assert curate(rows, scores=scores, invalid_rows="drop").ledger["image_text_ratio"].to_pylist() == [0.5, 0.5]


def test_documents_are_renumbered() -> None:
    rows = documents(("a", 1, "text", "red"), ("a", 0, "image", BLUE), ("a", 2, "image", RED), ("b", 0, "image", BLUE))
    curated = curate(rows, keep="clip_score >= 0.5")
    assert curated.rows.select(["sample_id", "position", "modality"]).to_pylist() == [
        {"sample_id": "a", "position": 0, "modality": "text"},
        {"sample_id": "a", "position": 1, "modality": "image"},
    ]


def test_documents_whose_rows_are_apart_are_refused() -> None:
    rows = documents(("a", 0, "text", "x"), ("b", 0, "text", "x"), ("a", 1, "text", "x"))
    with pytest.raises(UsageError, match="the rows of document 'a' are not adjacent; sort them by sample_id"):
        curate(rows, keep="words >= 1")


def test_columns_of_a_frame_have_names_of_their_own() -> None:
    with pytest.raises(ColumnError, match="two columns are called 'image'"):
        curate(pd.DataFrame([[RED, RED]], columns=["image", "image"]))
    with pytest.raises(UsageError, match="a column is called 0; name columns by text"):
        curate(pd.DataFrame({"image": [RED], 0: [1]}))


def test_what_pandas_calls_missing_is_missing() -> None:
    curated = curate(pd.DataFrame({"image": pd.Series([RED, pd.NA, pd.NaT, None], dtype=object)}))
    assert curated.ledger["error"].to_pylist() == [None, *["no image: the cell is null"] * 3]


@pytest.mark.parametrize(
    "rows",
    [
        {"image": []},
        pd.DataFrame({"image": [], "caption": []}),
        pa.table({"image": pa.array([], pa.string())}),
        documents(),
    ],
)
def test_no_rows_are_no_error(rows: Any) -> None:
    curated = curate(rows, keep="blur >= 10", vectors=True, columns={} if isinstance(rows, pa.Table) else None)
    assert (curated.rows.num_rows, curated.ledger.num_rows, curated.counts.images.total) == (0, 0, 0)


@pytest.mark.parametrize("many", [3000])
def test_rows_of_many_shards_are_one_in_the_ledger(many: int) -> None:
    curated = curate({"image": [RED] * many, "caption": ["red", "blue", None] * (many // 3)}, keep="words >= 1")
    ledger = curated.ledger
    assert ledger["row"].to_pylist() == ledger["sample"].to_pylist() == list(range(many))
    assert set(ledger["shard"].to_pylist()) == {0}
    assert curated.kept.tolist() == [row for row in range(many) if row % 3 != 2]


def test_the_verdicts_are_those_of_a_run(tmp_path: Path) -> None:
    colours = ["red", "green", "blue", "white"] * 40
    rows = pa.table(
        {
            "image": [image_bytes(colour, seed=seed) for seed, colour in enumerate(colours)],
            "caption": ["red square", "a green one", "nothing", None] * 40,
        }
    )
    pq.write_table(rows, tmp_path / "rows.parquet")
    keep = ["blur >= 300", "words <= 2", "width >= 10"]
    run = clipsieve.run(read=str(tmp_path / "rows.parquet"), keep=keep, out=tmp_path / "run")
    curated = clipsieve.curate(rows, keep=keep)
    assert curated.ledger.drop_columns(["shard"]).equals(run.ledger.drop_columns(["shard"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dedup": 0.9}, "dedup: not for rows in memory; write them to a file and use clipsieve.run"),
        ({"keep": "blur in top 10%"}, "needs a whole data set; use clipsieve.run"),
        ({"keep": "blurr >= 1"}, "did you mean 'blur'"),
        ({"read": "rows.jsonl"}, "read: not for rows in memory"),
        ({"invalid_rows": "drop"}, "invalid_rows of documents only, and these are captions rows"),
        ({"kep": "blur >= 1"}, "unknown key 'kep'; did you mean 'keep'"),
        ({"columns": {"image": "picture"}}, "the rows in memory: no column 'picture'; there are image"),
    ],
)
def test_a_wrong_request_is_a_value_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curate({"image": [RED]}, **options)


def test_a_model_by_its_name_is_no_encoder() -> None:
    with pytest.raises(UsageError, match="encoder is a loaded model; give a name as model='demo'"):
        clipsieve.curate({"image": [RED]}, encoder="demo")  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [None, [{"image": RED}], pa.record_batch({"image": [RED]}), 7])
def test_what_is_no_table_is_refused(rows: Any) -> None:
    with pytest.raises(UsageError, match="give an Arrow table, a DataFrame or a mapping of column names to values"):
        curate(rows)


def test_counts_that_do_not_add_up_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "count", lambda self: SourceCounts(samples=2, images=2))
    with pytest.raises(CountsError, match="counts do not add up"):
        curate({"image": [RED]})


@pytest.mark.parametrize(
    ("cells", "errors"),
    [
        (["a.jpg", None, "b.jpg"], ["missing: no such file"] * 2),
        (pd.Series(["a.jpg", None, "b.jpg"]), ["missing: no such file"] * 2),
        ([None, None], []),
        ([[RED, 5], [np.zeros((2, 2))]], [None, "cell holds int", "an array of float64"]),
        ([[["x"]], {"bytes": 5}, RED], ["cell holds list", "cell's bytes are int", None]),
        ([np.array(["a.jpg", "b.jpg"]), ["c.jpg"]], ["missing: no such file"] * 3),
    ],
)
def test_in_lists_each_image_has_its_own_error(cells: list[Any], errors: list[str | None]) -> None:
    curated = curate({"images": cells}, layout="lists", scores={"blur": {}})
    found = curated.ledger.filter(pc.is_valid(curated.ledger["image"]))["error"].to_pylist()
    assert len(found) == len(errors)
    assert all((error or "") in (told or "") for error, told in zip(errors, found, strict=True))


def test_a_list_of_images_in_captions_is_one_that_cannot_be_read() -> None:
    curated = curate({"image": [["a.jpg"], RED]}, layout="captions")
    assert curated.ledger["error"].to_pylist() == ["no image: the cell holds list, neither a path nor bytes", None]


def test_columns_that_are_no_table_are_refused() -> None:
    with pytest.raises(UsageError, match="column 'image' is generator, not a list of values"):
        curate({"image": (cell for cell in [RED])})
    with pytest.raises(UsageError, match=r"columns of different lengths \(image 1, caption 2\)"):
        curate({"image": [RED], "caption": ["a", "b"]})
    with pytest.raises(UsageError, match="column 'caption' cannot be read"):
        curate({"image": [RED], "caption": [object()]})
    with pytest.raises(ColumnError, match="no image column"):
        curate({"picture": [RED]})
