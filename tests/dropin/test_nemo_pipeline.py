"""NeMo Curator's pipelines as their users write them: one run, what it writes, and what becomes of what is there."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clipsieve
from clipsieve.core import batch as batches
from clipsieve.dropin.nemo_curator import (
    BaseInterleavedFilterStage,
    InterleavedAspectRatioFilterStage,
    InterleavedBatch,
    InterleavedBlurFilterStage,
    InterleavedCLIPScoreFilterStage,
    InterleavedImageToTextRatioFilterStage,
    InterleavedParquetReader,
    InterleavedParquetWriterStage,
    InterleavedQRCodeFilterStage,
    InterleavedWebdatasetReader,
    InterleavedWebdatasetWriterStage,
    Pipeline,
    ProcessingStage,
    RayDataExecutor,
    XennaExecutor,
)
from clipsieve.dropin.nemo_curator.batch import in_order
from clipsieve.errors import ColumnError, UsageError
from tests.dropin.documents import (
    BLUE,
    FLAT,
    GREEN,
    RED,
    Row,
    at,
    image,
    metadata,
    pictures,
    places,
    raw,
    table,
    text,
    with_codes,
)
from tests.fakes import image_bytes

FEW = "red " * 3


def run(reader: ProcessingStage, *stages: ProcessingStage, name: str = "p") -> Pipeline:
    """A pipeline that has run."""
    pipeline = Pipeline(name=name, stages=[reader, *stages])
    pipeline.run()
    return pipeline


def left(path: Path | str, *stages: ProcessingStage) -> pa.Table:
    """What a pipeline without a writer leaves of a Parquet file."""
    tasks = Pipeline(name="p", stages=[InterleavedParquetReader(str(path)), *stages]).run()
    return pa.concat_tables([task.to_pyarrow() for task in tasks if isinstance(task, InterleavedBatch)])


def reasons(pipeline: Pipeline) -> list[str | None]:
    """Why each image went."""
    assert pipeline.last_run is not None
    return [row["reason"] or row["error"] for row in pipeline.last_run.ledger.to_pylist()]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def written(folder: Path) -> pa.Table:
    """The rows of all Parquet files in a folder."""
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])


def curated(folder: Path, executor: Any = None) -> Pipeline:
    """The published example, over a red, a green, a blurred, a coded and a broken image."""
    os.makedirs(folder / "raw", exist_ok=True)
    raw(
        folder,
        *(metadata("a", url="https://example.org"), text("a", 0), image("a", 1), image("a", 2, FLAT)),
        *(text("b", 0), image("b", 1, with_codes(150)), at("b", 2, path="nowhere.png"), image("b", 3, GREEN)),
        *(text("c", 0, FEW), image("c", 1), image("d", 0)),
    )
    pipeline = Pipeline(name="interleaved_quality_filters")
    pipeline.add_stage(InterleavedParquetReader(file_paths=f"{folder}/raw/*.parquet"))
    pipeline.add_stage(InterleavedBlurFilterStage(score_threshold=100.0))
    pipeline.add_stage(InterleavedQRCodeFilterStage(score_threshold=0.05))
    pipeline.add_stage(InterleavedImageToTextRatioFilterStage(min_ratio=0.001, max_ratio=0.1))
    pipeline.add_stage(InterleavedCLIPScoreFilterStage(model_dir="demo", min_score=0.20))
    pipeline.add_stage(InterleavedWebdatasetWriterStage(output_dir=f"{folder}/curated"))
    pipeline.run(executor)
    return pipeline


AS_PUBLISHED = ["kept", "blur 0 < 100", "qr_code 0.18 > 0.05", "missing: no such file", "clip_score", "sample dropped: "
                "image_text_ratio 0.33333 > 0.1", "sample dropped: image_text_ratio 1 > 0.1"]  # fmt: skip


def is_as_published(pipeline: Pipeline, folder: Path) -> None:
    told = [reason or "kept" for reason in reasons(pipeline)]
    assert told[:2] + told[3:4] + told[5:] == AS_PUBLISHED[:2] + AS_PUBLISHED[3:4] + AS_PUBLISHED[5:]
    assert told[2].startswith("qr_code 0.1")
    assert told[4].startswith("clip_score ")
    rows = left_of_tars(folder / "curated")
    assert places(rows) == [("a", -1, "metadata"), ("a", 0, "text"), ("a", 1, "image"), ("b", 0, "text")]
    assert pictures(rows) == [RED]


def left_of_tars(folder: Path) -> pa.Table:
    (task,) = Pipeline(name="p", stages=[InterleavedWebdatasetReader(str(folder))]).run()
    return task.to_pyarrow()


def test_the_published_example_runs_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "clipsieve"):
        pipeline = curated(tmp_path)
    is_as_published(pipeline, tmp_path)
    assert "7 images = 1 kept, 5 dropped, 1 failed" in caplog.text
    assert pipeline.last_run is not None
    assert pipeline.last_run.path.parent == tmp_path / "curated" / ".clipsieve"
    (task,) = pipeline.run()
    assert task.data == [str(tmp_path / "curated" / files(tmp_path / "curated")[0])]
    assert task._metadata == {"format": "webdataset", "source_files": [str(tmp_path / "raw" / "a.parquet")]}


def test_it_runs_on_ray_where_a_program_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    is_as_published(curated(Path(), XennaExecutor()), tmp_path)
    assert not ray.is_initialized()


def test_without_ray_an_executor_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'clipsieve\[ray\]'; pipeline.run\(\) without an executor"):
        RayDataExecutor()


def test_stages_are_rules_of_one_run() -> None:
    pipeline = Pipeline("q", "what stays", stages=[InterleavedParquetReader("a"), InterleavedBlurFilterStage()])
    pipeline.add_stage(InterleavedAspectRatioFilterStage()).add_stage(InterleavedImageToTextRatioFilterStage())
    assert pipeline.describe().splitlines()[-3:] == [
        "Rule: blur >= 100.0", "Rule: 1.0 <= aspect_ratio <= 2.0", "Rule: image_text_ratio >= 0.0",
    ]  # fmt: skip
    pipeline.add_stage(InterleavedImageToTextRatioFilterStage(max_ratio=1)).add_stage(InterleavedBlurFilterStage())
    assert pipeline.describe().splitlines()[-1] == (
        "Filter in Python: interleaved_image_to_text_ratio_filter, interleaved_blur_filter"
    )


def test_each_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[int] = Counter()
    decode = batches.decode

    def counted(data: bytes, **options: Any) -> Any:
        decoded[len(data)] += 1
        return decode(data, **options)

    monkeypatch.setattr(batches, "decode", counted)
    sizes = [image_bytes("red", size=(64 + n, 48)) for n in range(5)]
    left(
        raw(tmp_path, text("a", 0), *(image("a", n + 1, data) for n, data in enumerate(sizes))),
        *(InterleavedBlurFilterStage(), InterleavedQRCodeFilterStage(), InterleavedAspectRatioFilterStage()),
        *(InterleavedImageToTextRatioFilterStage(), InterleavedCLIPScoreFilterStage(model_dir="demo", min_score=-1.0)),
    )
    assert decoded == Counter(len(data) for data in sizes)


def test_the_ratio_counts_what_earlier_stages_have_left(tmp_path: Path) -> None:
    path = raw(tmp_path, text("a", 0, "red"), image("a", 1), image("a", 2, BLUE), image("a", 3, FLAT))
    clip = InterleavedCLIPScoreFilterStage(model_dir="demo", min_score=0.4)
    one = InterleavedImageToTextRatioFilterStage(max_ratio=1.0)
    assert places(left(path, clip, InterleavedBlurFilterStage(), one)) == [("a", 0, "text"), ("a", 1, "image")]
    assert places(left(path, one, clip, InterleavedBlurFilterStage())) == []


@dataclass
class FirstImage(BaseInterleavedFilterStage):
    """A user's own filter: of each document the first image."""

    name: str = "first_image"

    def content_keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        images = df["modality"] == "image"
        return ~images | (df[images].groupby("sample_id").cumcount().reindex(df.index) == 0)


def test_a_filter_of_ones_own_stands_between_two_published_ones(tmp_path: Path) -> None:
    path = raw(tmp_path, image("a", 0, FLAT), image("a", 1), image("a", 2, GREEN), image("b", 0, BLUE), metadata("b"))
    stages = InterleavedBlurFilterStage(), FirstImage(), InterleavedAspectRatioFilterStage(max_aspect_ratio=1.2)
    pipeline = run(InterleavedParquetReader(str(path)), *stages)
    assert reasons(pipeline) == [
        "blur 0 < 100", "aspect_ratio 1.3333 > 1.2", "dropped by first_image", "aspect_ratio 1.3333 > 1.2",
    ]  # fmt: skip
    assert pipeline.last_run is not None
    assert list(pipeline.last_run.counts.dropped_by) == [
        "interleaved_aspect_ratio_filter",
        "blur >= 100.0",
        "first_image",
    ]
    assert places(left(path, *stages[:2])) == [("a", 0, "image"), ("b", -1, "metadata"), ("b", 0, "image")]


@dataclass
class Loaded(FirstImage):
    """A filter that needs something loaded first."""

    said: list[str] = field(default_factory=list)

    def setup(self, worker_metadata: Any = None) -> None:
        self.said.append("up")

    def content_keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        self.said.append("mask")
        return super().content_keep_mask(task, df)

    def teardown(self) -> None:
        self.said.append("down")


def test_a_filter_of_ones_own_is_set_up_once(tmp_path: Path) -> None:
    stage = Loaded()
    left(raw(tmp_path, *(image(f"{n:03d}", 0) for n in range(600))), stage)
    assert (stage.said[0], stage.said[-1], {*stage.said[1:-1]}) == ("up", "down", {"mask"})


@dataclass
class Rewriting(FirstImage):
    """A filter that would do more than choose rows."""

    def process(self, task: InterleavedBatch) -> InterleavedBatch:
        return task


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "add a reader first"),
        ([InterleavedBlurFilterStage()], "add a reader first"),
        ([InterleavedParquetReader("a"), InterleavedParquetReader("b"), InterleavedBlurFilterStage()], "cannot stand"),
        ([InterleavedParquetReader("a"), Rewriting()], "override content_keep_mask"),
    ],
)
def test_stages_that_do_not_go_together_are_refused(stages: list[ProcessingStage], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pipeline("p", stages=stages).run()


def test_only_stages_can_be_added() -> None:
    with pytest.raises(TypeError, match="ProcessingStage"):
        Pipeline("p").add_stage("blur")  # type: ignore[arg-type]


PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photographs")
def test_real_photographs_get_the_verdicts_of_the_native_recipe(tmp_path: Path) -> None:
    found = (
        sorted(PHOTOS.glob("qr/*.jpg"))[:8] + sorted(PHOTOS.glob("odd/*.*"))[:12] + sorted(PHOTOS.glob("images/*"))[:10]
    )
    rows = [row for n, path in enumerate(found) for row in (text(f"{n:02d}", 0), at(f"{n:02d}", 1, path=path))]
    path = raw(tmp_path, *rows)
    stages = InterleavedBlurFilterStage(), InterleavedQRCodeFilterStage(), InterleavedAspectRatioFilterStage()
    pipeline = run(InterleavedParquetReader(str(path)), *stages)
    keep = ["blur >= 100", "qr_code <= 0.05", "1 <= aspect_ratio <= 2"]
    native = clipsieve.run(read=str(path), keep=keep, out=tmp_path / "native")
    assert pipeline.last_run is not None
    columns = ["reference", "verdict", "reason", "error"]
    assert pipeline.last_run.ledger.select(columns).equals(native.ledger.select(columns))
    assert native.counts.images.failed < native.counts.images.total - native.counts.images.kept


PARTS = st.sampled_from(["text", "word", "red", "green", "flat", "coded", "broken", "missing", "odd", "low"])
CODED = with_codes(120)


def part(sample: str, position: int, kind: str) -> Row:
    made = {
        "text": lambda: text(sample, position, "red " * 8),
        "word": lambda: text(sample, position, "green"),
        "red": lambda: image(sample, position),
        "green": lambda: image(sample, position, GREEN),
        "flat": lambda: image(sample, position, FLAT),
        "coded": lambda: image(sample, position, CODED),
        "broken": lambda: image(sample, position, b"broken"),
        "missing": lambda: image(sample, position, None),
        "odd": lambda: (sample, position, "video", {}),
        "low": lambda: image(sample, -2),
    }
    return made[kind]()


DOCUMENTS = st.lists(st.tuples(st.booleans(), st.lists(PARTS, max_size=5)), min_size=1, max_size=5)
STAGES = st.lists(
    st.sampled_from(
        [
            InterleavedBlurFilterStage(),
            InterleavedBlurFilterStage(drop_invalid_rows=False),
            InterleavedQRCodeFilterStage(),
            InterleavedQRCodeFilterStage(aggregate="sum"),
            InterleavedImageToTextRatioFilterStage(max_ratio=0.2),
            InterleavedImageToTextRatioFilterStage(max_ratio=1.0),
            InterleavedAspectRatioFilterStage(),
            InterleavedCLIPScoreFilterStage(model_dir="demo", min_score=0.3),
            FirstImage(),
        ]
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS, STAGES)
def test_a_pipeline_leaves_what_its_stages_leave_one_by_one(
    tmp_path: Path, documents: list[tuple[bool, list[str]]], stages: list[BaseInterleavedFilterStage]
) -> None:
    rows = [
        row
        for number, (described, kinds) in enumerate(documents)
        for name in [f"d{number}"]
        for row in [*([metadata(name)] if described else []), *(part(name, at, kind) for at, kind in enumerate(kinds))]
    ]
    if not rows:
        return
    batch = InterleavedBatch(data=table(*rows))
    for stage in stages:
        batch = stage.process(batch)
    got, expected = in_order(left(raw(tmp_path, *rows), *stages))[0], batch.to_pyarrow()
    assert places(got) == places(expected)
    assert pictures(got) == pictures(expected)


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Path]:
    """Two documents, in the first of which an image is missing."""
    return raw(tmp_path, text("a", 0), at("a", 1, path="nowhere.png"), image("a", 2), text("b", 0), image("b", 1))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("warn", [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]),
        ("drop_row", [("a", 0), ("a", 1), ("b", 0), ("b", 1)]),
        ("drop_sample", [("b", 0), ("b", 1)]),
    ],
)
@pytest.mark.parametrize("filters", [[], [InterleavedImageToTextRatioFilterStage()], [FirstImage()]], ids=len)
def test_images_that_cannot_be_read(
    broken: Path, tmp_path: Path, policy: str, expected: list[tuple[str, int]], filters: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    out = InterleavedParquetWriterStage(str(tmp_path / "out"), on_materialize_error=policy)
    run(InterleavedParquetReader(str(broken)), *filters, out)
    rows = written(tmp_path / "out")
    if filters and isinstance(filters[0], FirstImage):
        expected = [("a", 0), ("a", 1), ("b", 0), ("b", 1)] if policy == "warn" else expected
        expected = [("a", 0), ("b", 0), ("b", 1)] if policy == "drop_row" else expected
    assert [place[:2] for place in places(rows)] == expected
    errors = [row["materialize_error"] for row in rows.to_pylist() if row["materialize_error"]]
    assert errors == (["missing: no such file"] if policy == "warn" else [])
    assert ("cannot be read stay, without bytes" in caplog.text) == (policy == "warn")


@pytest.mark.parametrize("filters", [[], [InterleavedImageToTextRatioFilterStage()], [FirstImage()]], ids=len)
def test_an_image_that_cannot_be_read_stops_the_run_by_default(
    broken: Path, tmp_path: Path, filters: list[Any]
) -> None:
    with pytest.raises(RuntimeError, match=r"Materialization failed.*nowhere.png.*no such file.*drop_row"):
        run(InterleavedParquetReader(str(broken)), *filters, InterleavedParquetWriterStage(str(tmp_path / "out")))
    run(
        InterleavedParquetReader(str(broken)), *filters,
        InterleavedParquetWriterStage(str(tmp_path / "out"), on_materialize_error="drop_row"),
    )  # fmt: skip
    assert len(files(tmp_path / "out")) == 1


def test_a_filter_that_looks_at_images_drops_those_that_cannot_be_read(broken: Path, tmp_path: Path) -> None:
    run(
        InterleavedParquetReader(str(broken)),
        InterleavedBlurFilterStage(),
        InterleavedParquetWriterStage(str(tmp_path / "out")),
    )
    assert pictures(written(tmp_path / "out")) == [RED, RED]


def test_bytes_are_written_into_the_rows_unless_they_are_not_wanted(tmp_path: Path) -> None:
    (tmp_path / "green.png").write_bytes(GREEN)
    path = raw(tmp_path, at("a", 0, path=tmp_path / "green.png"), at("b", 0, path="nowhere.png"))
    run(
        InterleavedParquetReader(str(path)),
        InterleavedParquetWriterStage(str(tmp_path / "lazy"), materialize_on_write=False),
    )
    assert pictures(written(tmp_path / "lazy")) == [None, None]
    out = InterleavedParquetWriterStage(str(tmp_path / "out"), on_materialize_error="drop_row")
    run(InterleavedParquetReader(str(path)), out)
    assert pictures(written(tmp_path / "out")) == [GREEN]


def test_parquet_to_tar_to_parquet_loses_nothing(tmp_path: Path) -> None:
    path = raw(
        tmp_path,
        metadata("a", url="x"),
        text("a", 0),
        image("a", 1, source_ref='{"path": "x.png"}'),
        image("b", 0, GREEN),
    )
    run(InterleavedParquetReader(str(path)), InterleavedWebdatasetWriterStage(str(tmp_path / "tars")))
    run(InterleavedWebdatasetReader(str(tmp_path / "tars")), InterleavedParquetWriterStage(str(tmp_path / "back")))
    assert written(tmp_path / "back").equals(pq.read_table(path))


def test_metadata_that_says_nothing_goes_into_a_tar_as_well(tmp_path: Path) -> None:
    path = raw(tmp_path, metadata("a"), image("a", 0))
    run(InterleavedParquetReader(str(path)), InterleavedWebdatasetWriterStage(str(tmp_path / "tars")))
    assert left_of_tars(tmp_path / "tars").equals(pq.read_table(path))


def test_the_same_pipeline_replaces_its_files_and_leaves_others(tmp_path: Path) -> None:
    path, out = raw(tmp_path, image("a", 0), image("b", 0, FLAT)), str(tmp_path / "out")
    run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(out))
    run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(out), name="another")
    before = files(tmp_path / "out")
    assert len(before) == 2
    run(InterleavedParquetReader(str(path)), InterleavedBlurFilterStage(), InterleavedParquetWriterStage(out))
    assert files(tmp_path / "out") == before
    assert sorted(pq.read_table(tmp_path / "out" / name).num_rows for name in before) == [1, 2]


def test_what_cannot_run_replaces_nothing(tmp_path: Path) -> None:
    path, out = raw(tmp_path, image("a", 0)), str(tmp_path / "out")
    run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(out))
    before = files(tmp_path / "out")
    empty = str(tmp_path / "out" / ".clipsieve")
    with pytest.raises(clipsieve.ClipsieveError, match="model"):
        run(
            InterleavedParquetReader(str(path)), InterleavedCLIPScoreFilterStage(model_dir=empty),
            InterleavedParquetWriterStage(out),
        )  # fmt: skip
    with pytest.raises(ColumnError, match="nope"):
        run(InterleavedParquetReader(str(path), fields=("nope",)), InterleavedParquetWriterStage(out, mode="overwrite"))
    assert files(tmp_path / "out") == before


def test_append_replaces_nothing(tmp_path: Path) -> None:
    path = raw(tmp_path, image("a", 0))
    for count in (1, 2, 3):
        run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(tmp_path / "out"), mode="append"))
        assert len(files(tmp_path / "out")) == count


def test_append_leaves_even_an_unfinished_run_of_something_else(tmp_path: Path) -> None:
    path = raw(tmp_path, *(image(f"{n:02d}", 0, image_bytes(seed=n)) for n in range(9)), at("b", 0, path="nowhere.png"))
    reader = InterleavedParquetReader(str(path), blocksize="20KiB")
    with pytest.raises(RuntimeError, match="Materialization failed"):
        run(reader, InterleavedParquetWriterStage(str(tmp_path / "out"), mode="append"))
    before = files(tmp_path / "out")
    run(reader, InterleavedParquetWriterStage(str(tmp_path / "out"), mode="append", on_materialize_error="drop_row"))
    assert before
    assert set(before) < set(files(tmp_path / "out"))


def test_overwrite_removes_what_writers_wrote_and_nothing_else(tmp_path: Path) -> None:
    path, out = raw(tmp_path, image("a", 0)), tmp_path / "out"
    run(InterleavedParquetReader(str(path)), InterleavedWebdatasetWriterStage(str(out)), name="another")
    (out / "notes.txt").write_text("mine")
    (out / "deeper").mkdir()
    (out / "deeper" / "b.parquet").write_bytes(b"mine")
    (out / "link.parquet").symlink_to(path)
    pipeline = run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(out), mode="overwrite"))
    assert pipeline.last_run is not None
    made = f"{pipeline.last_run.path.name}-00000.parquet"
    assert files(out) == sorted([made, "deeper", "link.parquet", "notes.txt"])
    assert path.exists()
    assert len(list((out / ".clipsieve").iterdir())) == 1


@pytest.mark.parametrize("where", ["raw", ".", "work", "link"])
def test_overwrite_spares_the_input_the_home_and_the_working_directory(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = raw(tmp_path, image("a", 0))
    (tmp_path / "work" / "here").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "raw")
    monkeypatch.chdir(tmp_path / "work" / "here")
    writer = InterleavedParquetWriterStage(str(tmp_path / where), mode="overwrite")
    with pytest.raises(clipsieve.ClipsieveError, match="not emptied by mode='overwrite'"):
        run(InterleavedParquetReader(str(path)), writer)
    assert path.exists()


def test_error_refuses_a_folder_that_is_there(tmp_path: Path) -> None:
    path = raw(tmp_path, image("a", 0))
    writer = InterleavedParquetWriterStage(str(tmp_path / "out"), mode="error")
    run(InterleavedParquetReader(str(path)), writer)
    with pytest.raises(FileExistsError, match="is there already"):
        run(InterleavedParquetReader(str(path)), writer)
    with pytest.raises(FileExistsError, match="is there already"):
        InterleavedParquetWriterStage(str(tmp_path / "out"), mode="error")


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        raw(
            tmp_path,
            *(image(f"{name}{n}", 0, at_frame) for n, at_frame in enumerate([RED] * 700)),
            name=f"raw/{name}.parquet",
        )
    reader = InterleavedParquetReader(str(tmp_path / "raw"))
    stages = InterleavedAspectRatioFilterStage(), InterleavedParquetWriterStage(str(tmp_path / "out"))
    whole = batches.decode
    monkeypatch.setattr(batches, "decode", lambda data, **options: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(reader, *stages)
    monkeypatch.setattr(batches, "decode", whole)
    pipeline = run(reader, *stages)
    assert pipeline.last_run is not None
    assert pipeline.last_run.counts.images.kept == 1400


def test_columns_pass_through_as_asked_for(tmp_path: Path) -> None:
    path = raw(tmp_path, metadata("a", url="x", score="0.5"), image("a", 0))
    assert left(path).column_names[8:] == ["score", "url"]
    readers = [
        InterleavedParquetReader(str(path), fields=("url",), schema_overrides={"score": pa.float64()}),
        InterleavedParquetReader(str(path), schema_overrides={"score": pa.float64()}),
        InterleavedParquetReader(str(path), schema=pa.schema([("score", pa.float32()), ("new", pa.int64())])),
    ]
    fields, overrides, schema = (Pipeline("p", stages=[reader]).run()[0].to_pyarrow() for reader in readers)
    assert fields.column_names[8:] == ["url"]
    assert overrides["score"].to_pylist() == [0.5, None]
    assert schema.schema.types[8:] == [pa.float32(), pa.int64()]
    assert schema["score"].to_pylist() == [0.5, None]
    with pytest.raises(ColumnError, match="nope"):
        Pipeline("p", stages=[InterleavedParquetReader(str(path), fields=("nope",))]).run()


def test_a_smaller_block_makes_more_files(tmp_path: Path) -> None:
    path = raw(tmp_path, *(image(f"{n:03d}", 0, image_bytes(seed=n)) for n in range(20)))
    assert len(Pipeline("p", stages=[InterleavedParquetReader(str(path))]).run()) == 1
    assert len(Pipeline("p", stages=[InterleavedParquetReader(str(path), blocksize="20KiB")]).run()) > 3


def test_storage_options_hold_while_the_pipeline_runs(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    pq.write_table(table(image("a", 0)), memory.open("/bucket/a.parquet", "wb"))
    reader = InterleavedParquetReader(
        "memory://bucket/*.parquet", read_kwargs={"storage_options": {"skip_instance_cache": True}}
    )
    with reader.storage():
        assert fsspec.config.conf["memory"] == {"skip_instance_cache": True}
    assert "memory" not in fsspec.config.conf
    assert Pipeline("p", stages=[reader]).run()[0].num_items == 1
