"""A run in the hands of other tools, each opened by its own reader where it is installed."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

import clipsieve
from clipsieve.api import Silent, export_run
from clipsieve.api.export import datasets, fiftyone, projection
from clipsieve.api.export.places import whole_file, whole_folder
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.errors import ClipsieveError, ColumnError, OutputError, RecipeError, RunFolderError
from tests.fakes import image_bytes

CAPTIONS = ("=1+1", "a green thing", 'a blue, "quoted"\nthing', "ein rotes Ding: ä")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sharp images in shards of their own, a blurred one, and one that is no image; the run keeps the four."""
    folder = tmp_path_factory.mktemp("source")
    rows = []
    for i, caption in enumerate(CAPTIONS):
        (folder / f"{i}.png").write_bytes(image_bytes("red", seed=i))
        rows.append({"uid": f"{i:032x}", "image": f"{i}.png", "caption": caption})
    (folder / "blurred.png").write_bytes(image_bytes("red", sharp=False))
    (folder / "broken.png").write_bytes(b"no image")
    rows += [{"uid": f"{9 - i:032x}", "image": f"{name}.png"} for i, name in enumerate(("blurred", "broken"))]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    clipsieve.run(
        read={"path": str(folder / "rows.jsonl"), "shard_bytes": 100, "columns": {"id": "uid"}}, model="demo",
        keep=["blur >= 100", "width >= 1"], scores={"clip_score": {}}, vectors=True, out=folder / "run",
    )  # fmt: skip
    clipsieve.label(folder / "run", labels=["a red star", "a blue ring"], all=True)
    return folder


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a document with three images in the rows themselves."""
    folder = tmp_path_factory.mktemp("documents")
    parts: list[tuple[str, str | None, bytes | None]] = [
        ("text", "before", None), ("image", None, image_bytes("red")), ("image", None, image_bytes("green", seed=1)),
        ("image", None, b"broken"),
    ]  # fmt: skip
    rows = [
        {"sample_id": "d", "position": i, "modality": kind, "text_content": text, "binary_content": data}
        for i, (kind, text, data) in enumerate(parts)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=INTERLEAVED_SCHEMA), folder / "documents.parquet")
    clipsieve.run(
        read=str(folder / "documents.parquet"), model="demo", keep="blur >= 1",
        scores={"pair_similarity": {}}, out=folder / "run",
    )  # fmt: skip
    return folder / "run"


@pytest.mark.parametrize("group", [datasets.GROUP, 1])
def test_datasets_opens_the_folder_with_the_bytes_as_they_were(
    documents: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    hugging_face = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "GROUP", group)
    done = export_run(source / "run", f"datasets:{tmp_path}/out/")
    assert (done.path, done.rows, done.notes) == (tmp_path / "out", 4, ())
    loaded = hugging_face.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["caption"][:] == list(CAPTIONS)
    assert set(loaded["verdict"]) == {"kept"}
    assert loaded[1]["image"].size == (64, 48)
    raw = loaded.cast_column("image", hugging_face.Image(decode=False))[1]["image"]
    assert raw == {"bytes": (source / "1.png").read_bytes(), "path": "1.png"}
    assert loaded[1]["label"] in ("a red star", "a blue ring")
    export_run(documents, f"datasets:{tmp_path / 'documents'}")
    (file,) = (tmp_path / "documents").iterdir()
    images = pq.read_table(file)["image"].to_pylist()
    assert [image["bytes"] for image in images] == [image_bytes("red"), image_bytes("green", seed=1)]
    assert pq.read_metadata(file).num_row_groups == (1 if group > 1 else 2)
    assert loaded[1]["clip_score"] == clipsieve.Run.open(source / "run").ledger["clip_score"][1].as_py()


def test_of_what_cannot_be_read_datasets_has_a_row_without_an_image(source: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(source, tmp_path / "moved"))
    (moved / "3.png").unlink()
    run = clipsieve.run(read=str(moved / "rows.jsonl"), model="demo", keep="width >= 1", out=moved / "again")
    (moved / "2.png").unlink()
    done = export_run(run, f"datasets:{tmp_path / 'out'}", verdict="all")
    assert done.notes == ("2 images unreadable: `image` is null",)
    table = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out").iterdir())])
    assert table.num_rows == 6
    assert [cell["path"] if cell else None for cell in table["image"].to_pylist()] == [
        "0.png", "1.png", None, None, "blurred.png", "broken.png",
    ]  # fmt: skip


def samples(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "samples.json").read_text()))


def test_fiftyone_gets_files_where_they_are(source: Path, tmp_path: Path) -> None:
    done = export_run(source / "run", f"fiftyone:{tmp_path / 'out'}")
    assert (done.rows, os.listdir(tmp_path / "out")) == (6, ["samples.json"])
    whole = samples(tmp_path / "out")
    rows: list[dict[str, object]] = whole["samples"]  # type: ignore[assignment]
    assert [row["filepath"] for row in rows[:2]] == [str(source / "0.png"), str(source / "1.png")]
    assert [row["verdict"] for row in rows] == ["kept"] * 4 + ["dropped", "failed"]
    fields: dict[str, str] = whole["sample_fields"]  # type: ignore[assignment]
    assert fields.keys() == rows[0].keys() - {"filepath", "tags", "_media_type"}
    assert fields["blur"] == "fiftyone.core.fields.FloatField"
    assert fields["label_probabilities"] == "fiftyone.core.fields.ListField(fiftyone.core.fields.DictField)"


def test_images_that_are_no_files_are_written_for_fiftyone(documents: Path, tmp_path: Path) -> None:
    done = export_run(documents, f"fiftyone:{tmp_path / 'out'}")
    assert (done.rows, done.notes) == (3, ())
    rows: list[dict[str, object]] = samples(tmp_path / "out")["samples"]  # type: ignore[assignment]
    assert [row["filepath"] for row in rows] == [
        "data/00000/00000000.png", "data/00000/00000001.png", "data/00000/00000002.jpg",
    ]  # fmt: skip
    assert (tmp_path / "out" / str(rows[0]["filepath"])).read_bytes() == image_bytes("red")
    assert rows[0]["caption"] == "before"


def test_fiftyone_imports_what_it_is_given(documents: Path, source: Path, tmp_path: Path) -> None:
    fo = pytest.importorskip("fiftyone")
    try:
        fo.list_datasets()
    except Exception:
        pytest.skip("FiftyOne has no database here")
    for run, count in ((documents, 3), (source / "run", 6)):
        export_run(run, f"fiftyone:{tmp_path / run.parent.name}")
        folder = tmp_path / run.parent.name
        dataset = fo.Dataset.from_json(str(folder / "samples.json"), rel_dir=str(folder))
        assert dataset.media_type == "image"
        assert len(dataset) == count
        assert all(Path(path).is_file() for path in dataset.values("filepath"))
        ledger = clipsieve.Run.open(run).ledger
        assert dataset.values("verdict") == ledger["verdict"].to_pylist()
        assert dataset.values("blur") == pytest.approx(ledger["blur"].to_pylist(), nan_ok=True)


def test_a_name_that_says_no_image_is_a_reason_for_a_copy(source: Path, tmp_path: Path) -> None:
    shutil.copy(source / "0.png", tmp_path / "picture")
    (tmp_path / "rows.jsonl").write_text(
        '{"image": "picture", "caption": "x"}\n{"image": "gone.png", "caption": "x"}\n'
    )
    run = clipsieve.run(read=str(tmp_path / "rows.jsonl"), keep="width >= 1", out=tmp_path / "run")
    done = export_run(run, f"fiftyone:{tmp_path / 'out'}")
    assert (done.rows, done.notes) == (1, ("1 image left out: nothing to read",))
    (row,) = samples(tmp_path / "out")["samples"]  # type: ignore[misc]
    assert row["filepath"] == "data/00000/00000000.png"


def test_atlas_has_points_neighbours_and_thumbnails(source: Path, tmp_path: Path) -> None:
    done = export_run(source / "run", f"atlas:{tmp_path / 'points.parquet'}")
    assert (done.rows, done.notes) == (4, ("2 images left out: no vector in the run",))
    table = pq.read_table(tmp_path / "points.parquet")
    assert np.isfinite(table["x"].to_numpy()).all()
    vectors = np.concatenate([clipsieve.Run.open(source / "run").vectors(shard) for shard in range(4)])
    cosines = vectors @ vectors.T
    for row, near in enumerate(table["neighbors"].to_pylist()):
        assert near["ids"][0] == row
        assert sorted(near["ids"]) == [0, 1, 2, 3]
        assert near["distances"][1:] == pytest.approx(1 - cosines[row][near["ids"][1:]], abs=1e-5)
        assert near["distances"] == sorted(near["distances"])
    small = Image.open(io.BytesIO(table["image"][0].as_py()["bytes"]))
    assert (small.format, small.size) == ("JPEG", (64, 48))
    assert table["caption"].to_pylist() == list(CAPTIONS)
    export_run(source / "run", f"atlas:{tmp_path / 'again.parquet'}")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "points.parquet").read_bytes()


def test_embedding_atlas_reads_the_file(source: Path, tmp_path: Path) -> None:
    command = pytest.importorskip("embedding_atlas.cli").main
    runner = pytest.importorskip("click.testing").CliRunner()
    export_run(source / "run", f"atlas:{tmp_path / 'points.parquet'}")
    columns = ["--x", "x", "--y", "y", "--neighbors", "neighbors", "--image", "image"]
    done = runner.invoke(
        command, [str(tmp_path / "points.parquet"), *columns, "--export-application", str(tmp_path / "page.zip")]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.zip").stat().st_size


@pytest.mark.parametrize("count", [1, 2, 3, 4, 40])
def test_any_number_of_images_can_be_drawn(count: int) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(count, 8)))
    drawn = projection.project(vectors, Silent())
    assert drawn.points.shape == (count, 2)
    assert np.isfinite(drawn.points).all()
    assert drawn.neighbours.shape == drawn.distances.shape == (count, min(count, projection.NEIGHBOURS))


def test_of_many_images_some_are_drawn_and_the_others_placed_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "ALL", 150)
    monkeypatch.setattr(projection, "PLACED", 20)
    centres = unit(np.random.default_rng(0).normal(size=(2, 16)))
    vectors = unit(np.repeat(centres, 100, axis=0) + np.random.default_rng(1).normal(scale=0.02, size=(200, 16)))
    drawn = projection.project(vectors, Silent())
    first, second = drawn.points[:100], drawn.points[100:]
    assert np.linalg.norm(first - first.mean(0), axis=1).max() < np.linalg.norm(first.mean(0) - second.mean(0))
    assert (drawn.neighbours[:100] < 100).all()


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_datacomp_gets_each_uid_once_and_sorted(source: Path, tmp_path: Path) -> None:
    assert export_run(source / "run", f"datacomp:{tmp_path / 'kept.npy'}").rows == 4
    kept = np.load(tmp_path / "kept.npy")
    assert kept.dtype == np.dtype("u8,u8")
    assert kept.tolist() == [(0, 0), (0, 1), (0, 2), (0, 3)]
    export_run(source / "run", f"datacomp:{tmp_path / 'all.npy'}", verdict="all")
    assert np.load(tmp_path / "all.npy").tolist() == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 8), (0, 9)]


def test_the_uids_of_datacomp_may_stand_in_the_json_beside_the_image(tmp_path: Path) -> None:
    uids = ["ffffffffffffffff0000000000000001", "00000000000000010000000000000002", "00000000000000010000000000000002"]
    with tarfile.open(tmp_path / "00000000.tar", "w") as tar:
        for i, uid in enumerate(uids):
            for name, data in (("png", image_bytes("red", seed=i)), ("json", json.dumps({"uid": uid}).encode())):
                member = tarfile.TarInfo(f"{i:09d}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    run = clipsieve.run(read=str(tmp_path / "00000000.tar"), keep="width >= 1", out=tmp_path / "run")
    done = export_run(run, f"datacomp:{tmp_path / 'uids.npy'}", uid="uid")
    assert done.notes == ("1 sample with the uid of another: each uid stands there once",)
    assert np.load(tmp_path / "uids.npy").tolist() == [(1, 2), (2**64 - 1, 1)]
    with pytest.raises(RecipeError, match="'000000000'; name the column of the source that holds them with --uid"):
        export_run(run, f"datacomp:{tmp_path / 'other.npy'}")
    with pytest.raises(RecipeError, match="has no id"):
        export_run(run, f"datacomp:{tmp_path / 'other.npy'}", uid="nothing")


def test_a_column_that_the_source_lacks_is_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ColumnError, match=r"no column 'id' in the source; it has uid, image, caption"):
        export_run(source / "run", f"datacomp:{tmp_path / 'uids.npy'}", uid="id")


def test_csv_is_the_ledger_to_the_letter(documents: Path, source: Path, tmp_path: Path) -> None:
    export_run(source / "run", f"csv:{tmp_path / 'ledger.csv'}")
    ledger = clipsieve.Run.open(source / "run").ledger
    options = pc_csv.ConvertOptions(
        column_types={f.name: f.type for f in ledger.schema if not pa.types.is_nested(f.type)},
        strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""],
    )  # fmt: skip
    back = pc_csv.read_csv(tmp_path / "ledger.csv", convert_options=options)
    assert back.column_names == ledger.column_names
    for name in set(back.column_names) - {"label_probabilities"}:
        assert back[name].null_count == ledger[name].null_count, name  # a NaN is none
        assert str(back[name].to_pylist()) == str(ledger[name].to_pylist()), name
    assert json.loads(back["label_probabilities"][0].as_py()) == ledger["label_probabilities"][0].as_py()

    export_run(documents, f"csv:{tmp_path / 'documents.csv'}", verdict="kept")
    with open(tmp_path / "documents.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["kept", "kept"]
    values = json.loads(rows[0]["pair_similarity"])
    assert len(values) == 2
    assert values[1] != values[1]  # the broken image has no vector: NaN, not null


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("ledger.csv", r"give FORMAT:PATH, such as csv:ledger.csv; the formats are datasets, fiftyone, atlas"),
        ("dataset:x", r"did you mean datasets:PATH\?"),
        ("csv:", r"give a path on this machine, such as csv:export.csv"),
        ("csv:s3://bucket/x.csv", r"give a path on this machine"),
        ("atlas:points", r"one file that ends in .parquet"),
        ("fiftyone:samples.json", r"this is a folder, such as fiftyone:export/"),
    ],
)
def test_a_wrong_target_is_told_in_a_line(source: Path, to: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        export_run(source / "run", to)


def test_what_is_there_already_stays(source: Path, tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").write_text("mine")
    with pytest.raises(OutputError, match="already exists; remove it or choose another"):
        export_run(source / "run", f"csv:{tmp_path / 'ledger.csv'}")
    assert (tmp_path / "ledger.csv").read_text() == "mine"
    with pytest.raises(OutputError, match="is the run folder's own"):
        export_run(source / "run", f"csv:{source / 'run' / 'added' / 'ledger.csv'}")


@pytest.mark.parametrize("format", ["csv:x.csv", "datacomp:x.npy", "datasets:x", "fiftyone:x"])
def test_nothing_to_export_leaves_nothing_behind(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="has no dropped images to export"):
        export_run(documents, format, verdict="dropped")
    assert os.listdir() == []


def test_a_failure_halfway_leaves_nothing_behind(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fiftyone, "_file", full)
    with pytest.raises(OutputError, match="No space left on device; make room"):
        export_run(documents, f"fiftyone:{tmp_path / 'out'}")
    assert os.listdir(tmp_path) == []
    monkeypatch.undo()
    export_run(documents, f"fiftyone:{tmp_path / 'out'}")
    assert os.listdir(tmp_path) == ["out"]


def test_of_two_exports_to_one_place_the_first_to_end_stays_whole(tmp_path: Path) -> None:
    def folder(name: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        with whole_folder(tmp_path / "out") as one:
            (one / name).touch()
            meanwhile()

    with pytest.raises(OutputError, match="already exists"):
        folder("mine", lambda: folder("theirs"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "theirs"]

    def file(data: bytes, meanwhile: Callable[[], None] = lambda: None) -> None:
        with whole_file(tmp_path / "x.csv") as one:
            one.write(data)
            meanwhile()

    with pytest.raises(OutputError, match="already exists"):
        file(b"mine", lambda: file(b"theirs"))
    assert (tmp_path / "x.csv").read_bytes() == b"theirs"
    assert sorted(os.listdir(tmp_path)) == ["out", "x.csv"]


def test_a_run_that_cannot_be_exported_says_why(source: Path, documents: Path, tmp_path: Path) -> None:
    def refused(run: Path, to: str, error: type[ClipsieveError], said: str, **more: str) -> None:
        with pytest.raises(error, match=said):
            export_run(run, f"{to.split(':')[0]}:{tmp_path / to.split(':')[1]}", **more)  # type: ignore[arg-type]

    refused(documents, "atlas:x.parquet", RunFolderError, "holds no image vectors: run its recipe with --vectors")
    refused(
        documents,
        "csv:x.csv",
        RecipeError,
        "--verdict is one of kept, dropped, failed, all, not 'good'",
        verdict="good",
    )
    refused(documents, "csv:x.csv", RecipeError, "--uid goes with datacomp", uid="uid")
    refused(source / "run", "atlas:x.parquet", OutputError, "no vector of any of the 1 images", verdict="failed")
    moved = Path(shutil.copytree(source, tmp_path / "moved"))
    (moved / "run" / "ledger" / "00002.parquet").unlink()
    refused(moved / "run", "csv:x.csv", RunFolderError, r"is not finished \(5 of 6 shards\)")
    text = (source / "rows.jsonl").read_text()
    try:
        (source / "rows.jsonl").write_text(text + "\n")
        refused(source / "run", "datasets:x", RunFolderError, "the source has changed since this run began")
    finally:
        (source / "rows.jsonl").write_text(text)
    assert os.listdir(tmp_path) == ["moved"]
