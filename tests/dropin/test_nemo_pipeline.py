"""NeMo Curator's pipelines as their users write them: one run, what it writes, and what becomes of what is there."""

from __future__ import annotations

import logging
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from itertools import accumulate, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import clipsieve
from clipsieve.core import batch as batches
from clipsieve.core.lock import locked
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
from clipsieve.dropin.nemo_curator.fused import encoder
from clipsieve.dropin.nemo_curator.job import Finished, Job
from clipsieve.engines.commit import Committer
from clipsieve.errors import ColumnError, OutputError, UsageError
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
    assert "7 images = 1 kept, 5 dropped, 1 failed; ledger in " in caplog.text
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


@dataclass
class EvenPositions(BaseInterleavedFilterStage):
    """A user's own filter, by positions."""

    name: str = "even_positions"

    def content_keep_mask(self, task: InterleavedBatch, df: pd.DataFrame) -> pd.Series:
        return (df["position"] % 2 == 0) | (df["modality"] == "metadata")


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


def test_the_folder_of_a_run_that_is_gone_when_the_program_ends_is_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "clipsieve"):
        left(raw(tmp_path, image("a", 0)), InterleavedBlurFilterStage())
    assert "p: 1 images = 1 kept, 0 dropped, 0 failed" in caplog.text
    assert "ledger in" not in caplog.text


@pytest.mark.parametrize("executor", ["ray", XennaExecutor, 5])
def test_only_an_executor_is_taken_for_one(executor: Any) -> None:
    with pytest.raises(UsageError, match=r"an executor such as XennaExecutor\(\), or nothing, not "):
        Pipeline("p", stages=[InterleavedParquetReader("a")]).run(executor)


def test_only_stages_can_be_added() -> None:
    with pytest.raises(TypeError, match="ProcessingStage"):
        Pipeline("p").add_stage("blur")  # type: ignore[arg-type]


PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"


@pytest.mark.filterwarnings("ignore:::PIL")
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


CODED = with_codes(120)  # 12 % of the page
KINDS: dict[str, Callable[[str, int], Row]] = {
    "text": lambda sample, position: text(sample, position, "red " * 8),
    "word": lambda sample, position: text(sample, position, "green"),
    "red": image,
    "green": lambda sample, position: image(sample, position, GREEN),
    "flat": lambda sample, position: image(sample, position, FLAT),
    "coded": lambda sample, position: image(sample, position, CODED),
    "broken": lambda sample, position: image(sample, position, b"broken"),
    "missing": lambda sample, position: image(sample, position, None),
    "odd": lambda sample, position: (sample, position, "video", {}),
    "stray": metadata,
    "low": lambda sample, position: image(sample, -2),
}
PARTS = st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 4))
"""What a row is, and how far its position lies behind the last one."""

DOCUMENTS = st.lists(st.tuples(st.booleans(), st.lists(PARTS, max_size=5)), min_size=1, max_size=5)
STAGES = st.lists(
    st.sampled_from(
        [
            InterleavedBlurFilterStage(),
            InterleavedBlurFilterStage(drop_invalid_rows=False),
            InterleavedQRCodeFilterStage(),
            InterleavedQRCodeFilterStage(aggregate="sum"),
            InterleavedImageToTextRatioFilterStage(max_ratio=0.2),
            InterleavedImageToTextRatioFilterStage(max_ratio=1.0, drop_invalid_rows=False),
            InterleavedAspectRatioFilterStage(),
            InterleavedCLIPScoreFilterStage(model_dir="demo", min_score=0.3),
            FirstImage(),
            FirstImage(drop_invalid_rows=False),
            EvenPositions(),
        ]
    ),
    min_size=1,
    max_size=4,
)
Document = list[dict[str, Any]]


def left_by(stage: BaseInterleavedFilterStage, document: Document) -> Document:
    """What a stage leaves of a document, in plain Python."""
    if stage.drop_invalid_rows:
        document = [row for row in document if row["modality"] != "video" and is_in_place(row)]
    document = tidied(document)
    return tidied([row for row in document if stays(stage, row, document)])


def is_in_place(row: dict[str, Any]) -> bool:
    return (row["position"] == -1) if row["modality"] == "metadata" else row["position"] >= 0


def tidied(document: Document) -> Document:
    """Nothing without text, image or table; metadata at -1, then the others at 0, 1, 2, ..."""
    if not any(row["modality"] in ("text", "image", "table") for row in document):
        return []
    document = sorted(document, key=lambda row: row["position"])
    described = [row | {"position": -1} for row in document if row["modality"] == "metadata"]
    content = [row for row in document if row["modality"] != "metadata"]
    return described + [row | {"position": n} for n, row in enumerate(content)]


def stays(stage: BaseInterleavedFilterStage, row: dict[str, Any], document: Document) -> bool:
    images = [other for other in document if other["modality"] == "image"]
    texts = [other["text_content"] for other in document if other["modality"] == "text"]
    if isinstance(stage, InterleavedImageToTextRatioFilterStage):
        ratio = len(images) / max(1, sum(len(said.split()) for said in texts))
        return stage.min_ratio <= ratio <= stage.max_ratio
    if isinstance(stage, EvenPositions):
        return bool(row["modality"] == "metadata" or row["position"] % 2 == 0)
    if row["modality"] != "image":
        return True
    if isinstance(stage, FirstImage):
        return row is images[0]
    data = row["binary_content"]
    if data in (None, b"broken"):
        return False
    rgb = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    if isinstance(stage, InterleavedBlurFilterStage):
        return bool(cv2.Laplacian(rgb, cv2.CV_64F).var() >= stage.score_threshold)
    if isinstance(stage, InterleavedQRCodeFilterStage):
        return bool(data != CODED)
    if isinstance(stage, InterleavedAspectRatioFilterStage):
        return stage.min_aspect_ratio <= rgb.shape[1] / rgb.shape[0] <= stage.max_aspect_ratio
    assert isinstance(stage, InterleavedCLIPScoreFilterStage)
    model = encoder("demo", "cpu")
    return bool(texts and (model.texts(texts) @ model.images(model.prepare(rgb)[None])[0]).max() >= stage.min_score)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS, STAGES)
def test_a_pipeline_and_its_stages_one_by_one_leave_what_plain_python_leaves(
    tmp_path: Path, documents: list[tuple[bool, list[tuple[str, int]]]], stages: list[BaseInterleavedFilterStage]
) -> None:
    rows: list[Row] = []
    for number, (described, kinds) in enumerate(documents):
        positions = accumulate((gap for _, gap in kinds), initial=-1)
        rows += [metadata(f"d{number}")] if described else []
        rows += [KINDS[kind](f"d{number}", at) for (kind, _), at in zip(kinds, islice(positions, 1, None), strict=True)]
    if not rows:
        return
    cells = table(*rows).to_pylist()
    batch, expected = (
        InterleavedBatch(data=table(*rows)),
        [list(found) for _, found in groupby(cells, itemgetter("sample_id"))],
    )
    for stage in stages:
        batch = stage.process(batch)
        expected = [left_by(stage, document) for document in expected]
    whole = [row for document in expected for row in document]
    for got in (batch.to_pyarrow(), in_order(left(raw(tmp_path, *rows), *stages))):
        assert places(got) == [(row["sample_id"], row["position"], row["modality"]) for row in whole]
        assert pictures(got) == [row["binary_content"] for row in whole if row["modality"] == "image"]


def test_metadata_by_itself_goes_where_invalid_rows_may_stay(tmp_path: Path) -> None:
    path = raw(tmp_path, metadata("a"), image("b", 0), ("b", 4, "video", {}), metadata("c", 2))
    for stage in (InterleavedBlurFilterStage(drop_invalid_rows=False), EvenPositions(drop_invalid_rows=False)):
        assert {place[0] for place in places(left(path, stage))} == {"b"}


@pytest.fixture
def broken(tmp_path: Path) -> Path:
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


class Elsewhere:
    """An executor whose log nobody sees, as that of another machine."""

    def execute(self, job: Job) -> Finished:
        log = logging.getLogger("clipsieve")
        log.disabled = True
        try:
            return job.absolute().execute()
        finally:
            log.disabled = False


def test_the_warning_is_of_images_that_stay_wherever_the_pipeline_ran(
    broken: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = InterleavedParquetWriterStage(str(tmp_path / "out"), on_materialize_error="warn")
    reader, one = InterleavedParquetReader(str(broken)), InterleavedImageToTextRatioFilterStage(max_ratio=0.01)
    Pipeline("p", stages=[reader, out]).run(Elsewhere())
    assert "cannot be read stay, without bytes: {'missing: no such file': 1}" in caplog.text
    caplog.clear()
    run(reader, FirstImage(), one, out)  # the document with the broken image goes
    assert files(tmp_path / "out") == []
    assert "cannot be read" not in caplog.text


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


def test_overwrite_removes_what_runs_wrote_and_nothing_else(tmp_path: Path) -> None:
    path, out = raw(tmp_path, image("a", 0)), tmp_path / "out"
    run(InterleavedParquetReader(str(path)), InterleavedWebdatasetWriterStage(str(out)), name="another")
    (out / "notes.txt").write_text("mine")
    (out / "deeper").mkdir()
    (out / "deeper" / "b.parquet").write_bytes(b"mine")
    (out / ".clipsieve" / "mine").mkdir()
    pipeline = run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(out), mode="overwrite"))
    assert pipeline.last_run is not None
    stem = pipeline.last_run.path.name
    assert files(out) == sorted([f"{stem}_00000.parquet", "deeper", "notes.txt"])
    assert files(out / ".clipsieve") == sorted([stem, "mine"])
    assert path.exists()


@pytest.mark.parametrize("other", ["images.tar", "part.parquet", "link.parquet", "0123456789ab_00000.parquet"])
def test_overwrite_refuses_a_folder_with_files_that_no_run_there_wrote(tmp_path: Path, other: str) -> None:
    path, out = raw(tmp_path, image("a", 0)), tmp_path / "out"
    run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(out)))
    if other == "link.parquet":
        (tmp_path / "elsewhere").write_bytes(b"mine")
        (out / other).symlink_to(tmp_path / "elsewhere")
    else:
        (out / other).write_bytes(b"mine")
    before = files(out)
    with pytest.raises(OutputError, match=f"{other}: .*remove it by hand or choose another folder"):
        run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(out), mode="overwrite"))
    assert files(out) == before


@pytest.mark.parametrize("spelled", ["{}", "file://{}", "local://{}", "{}/../out", "link", "simplecache::file://{}"])
def test_overwrite_never_removes_what_is_read(tmp_path: Path, spelled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    run(InterleavedParquetReader(str(raw(tmp_path, image("a", 0)))), InterleavedParquetWriterStage(str(out)))
    (tmp_path / "link").symlink_to(out)
    monkeypatch.chdir(tmp_path)
    reader = InterleavedParquetReader(f"{spelled.format(out)}/*.parquet")
    with pytest.raises(OutputError, match="the input reads from it; nothing was replaced"):
        run(reader, InterleavedParquetWriterStage(str(out), mode="overwrite"))
    assert pictures(written(out)) == [RED]


def test_a_pipeline_that_reads_its_own_output_does_not_replace_it(tmp_path: Path) -> None:
    reader = InterleavedParquetReader(str(raw(tmp_path, image("a", 0)).parent))
    run(reader, InterleavedParquetWriterStage(str(tmp_path / "raw")))  # beside its input
    with pytest.raises(OutputError, match="the input reads from it; nothing was replaced"):
        run(reader, InterleavedParquetWriterStage(str(tmp_path / "raw")))
    assert pictures(written(tmp_path / "raw")) == [RED, RED]


@pytest.mark.parametrize("spelled", ["{}", "file://{}", "out/{.name}"])
def test_tars_in_which_the_input_has_its_images_are_never_removed(tmp_path: Path, spelled: str) -> None:
    out = tmp_path / "out"
    run(InterleavedParquetReader(str(raw(tmp_path, image("a", 0)))), InterleavedWebdatasetWriterStage(str(out)))
    (tar,) = out.glob("*.tar")
    with tarfile.open(tar) as opened:
        member = next(name for name in opened.getnames() if name.endswith(".png"))
    path = raw(tmp_path, at("a", 0, path=spelled.format(tar), member=member), name="referring.parquet")
    with pytest.raises(OutputError, match="the input reads from it"):
        run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(out), mode="overwrite"))
    run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(out)))
    assert pictures(written(out)) == [RED]


def test_overwrite_removes_nothing_while_a_run_there_is_in_use(tmp_path: Path) -> None:
    path, out = raw(tmp_path, image("a", 0)), tmp_path / "out"
    for name in ("p", "q", "r"):
        run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(out)), name=name)
    before = files(out)
    for held in (out / ".clipsieve").iterdir():
        with locked(held / ".lock"), pytest.raises(OutputError, match="in use by another process"):
            run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(out), mode="overwrite"))
        assert files(out) == before
        assert len(list((out / ".clipsieve").iterdir())) == 3


@pytest.mark.parametrize("name", ["curated.parquet", "out.tar", "kept.jsonl"])
def test_an_output_folder_may_be_called_like_a_file(tmp_path: Path, name: str) -> None:
    run(
        InterleavedParquetReader(str(raw(tmp_path, image("a", 0)))), InterleavedParquetWriterStage(str(tmp_path / name))
    )
    assert pictures(written(tmp_path / name)) == [RED]


def test_error_refuses_a_folder_that_is_there(tmp_path: Path) -> None:
    path = raw(tmp_path, image("a", 0))
    writer = InterleavedParquetWriterStage(str(tmp_path / "out"), mode="error")
    run(InterleavedParquetReader(str(path)), writer)
    with pytest.raises(FileExistsError, match="already exists"):
        run(InterleavedParquetReader(str(path)), writer)
    with pytest.raises(FileExistsError, match="already exists"):
        InterleavedParquetWriterStage(str(tmp_path / "out"), mode="error")


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Runs a pipeline of five shards twice, stopped after the first shard, and gives what the second run commits."""
    path = raw(tmp_path, *(image(f"{n:02d}", 0, image_bytes(seed=n)) for n in range(20)))
    reader = InterleavedParquetReader(str(path), blocksize="20KiB")
    commit = Committer.write_part

    def twice(*stages: ProcessingStage, meanwhile: Callable[[], object] = lambda: None) -> list[int]:
        committed: list[int] = []

        def stopping(self: Committer, kind: Any, shard: int, rows: pa.Table) -> Any:
            counts = commit(self, kind, shard, rows)
            committed.append(shard)
            if committed == [0]:
                raise KeyboardInterrupt
            return counts

        monkeypatch.setattr(Committer, "write_part", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(reader, *stages)
        meanwhile()
        committed[:] = [-1]
        pipeline = run(reader, *stages)
        assert pipeline.last_run is not None
        assert pipeline.last_run.counts.images.kept == 20
        return committed[1:]

    return twice


@pytest.mark.parametrize("mode", ["ignore", "append"])
def test_a_run_that_was_stopped_goes_on(tmp_path: Path, stopped: Callable[..., list[int]], mode: Any) -> None:
    out = InterleavedParquetWriterStage(str(tmp_path / "out"), mode=mode)
    again = stopped(InterleavedAspectRatioFilterStage(), out)
    assert again == list(range(1, len(again) + 1))
    assert len(files(tmp_path / "out")) == len(again) + 1 > 2


def test_one_with_a_filter_of_ones_own_begins_anew(tmp_path: Path, stopped: Callable[..., list[int]]) -> None:
    assert stopped(FirstImage(), InterleavedParquetWriterStage(str(tmp_path / "out")))[0] == 0


def test_under_overwrite_it_begins_anew_and_removes_what_came_meanwhile(
    tmp_path: Path, stopped: Callable[..., list[int]]
) -> None:
    path = raw(tmp_path, image("a", 0), name="raw/other.parquet")
    out = InterleavedParquetWriterStage(str(tmp_path / "out"), mode="overwrite")

    def another() -> None:
        run(InterleavedParquetReader(str(path)), InterleavedParquetWriterStage(str(tmp_path / "out")), name="another")

    again = stopped(InterleavedAspectRatioFilterStage(), out, meanwhile=another)
    assert again[0] == 0
    assert len(files(tmp_path / "out")) == len(again)


def test_under_error_it_never_goes_on(tmp_path: Path, stopped: Callable[..., list[int]]) -> None:
    with pytest.raises(FileExistsError, match="already exists"):
        stopped(InterleavedParquetWriterStage(str(tmp_path / "out"), mode="error"))


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
