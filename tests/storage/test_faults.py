"""A store that throttles, resets, stalls, cuts short, forgets and refuses: each ends well, or in one clear line."""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

import clipsieve
from clipsieve.core import kept, ranges, retry, storage
from clipsieve.core.fetch import ImageSource
from clipsieve.errors import ClipsieveError, ImageError, SourceError, StoreError
from clipsieve.runfolder import RunFolder
from tests.fakes import image_bytes
from tests.storage import server as wrong
from tests.storage.conftest import put, write_source
from tests.storage.server import SECRET, Fault, Server, listed_late
from tests.storage.test_runs import contents


@pytest.fixture
def source(bucket: str, tmp_path: Path) -> str:
    """A source in the bucket."""
    write_source(tmp_path / "data", f"{bucket}/data")
    put(tmp_path / "data", f"{bucket}/data")
    return f"{bucket}/data"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts by the store's client, and two around them, without long waits."""
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "retries", 2)
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    monkeypatch.setattr(retry, "_FIRST_WAIT", 0.01)


READS, ALL = ["GET .*data/i02", "GET .*data/i05"], ["GET .*list-type", "GET .*data/i04", "PUT .*ledger", "GET .*ledger"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (wrong.throttled, ALL),
        (wrong.busy, READS),
        (wrong.reset, ALL),
        (wrong.truncated, READS),
        (wrong.slow, READS),
        (wrong.stalled, READS[:1]),
    ],
)
def test_what_passes_is_tried_again_and_changes_nothing(
    bucket: str, store: Server, source: str, fault: Fault, requests: list[str]
) -> None:
    whole = clipsieve.run(read=f"{source}/paths.jsonl", write="webdataset", out=f"{bucket}/whole")
    for request in requests:
        store.goes_wrong(request, fault)
    run = clipsieve.run(read=f"{source}/paths.jsonl", write="webdataset", out=f"{bucket}/run")
    assert contents(f"{bucket}/run") == contents(f"{bucket}/whole")
    assert run.counts == whole.counts
    assert all(times == 0 for _, times, _ in store.faults), "not all went wrong"


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_comes_short_is_asked_for_again(store: Server, source: str) -> None:
    whole = storage.read(storage.place(f"{source}/all.bin"))
    store.goes_wrong("GET .*data/all.bin", wrong.short)
    with ranges.open_remote(f"{source}/all.bin") as file:
        assert file.read() == whole


@pytest.mark.usefixtures("impatient")
def test_a_store_that_stays_down_ends_the_run_and_fails_no_image(bucket: str, store: Server, source: str) -> None:
    store.goes_wrong("GET .*/data/i05", wrong.throttled, times=1000)
    with pytest.raises(StoreError, match=r"i05.png: the store does not answer \(Please reduce your request rate.\)"):
        clipsieve.run(read=f"{source}/paths.jsonl", out=f"{bucket}/run")
    store.faults.clear()
    run = clipsieve.run(read=f"{source}/paths.jsonl", out=f"{bucket}/run")
    assert run.counts.images.failed == 1  # the broken one


@pytest.mark.usefixtures("impatient")
def test_images_that_were_kept_in_a_store_are_only_damaged_where_they_are(bucket: str, store: Server) -> None:
    path, url = f"{bucket}/run/fetched/00000.parquet", "https://example.org/a.png"

    def keep(data: bytes) -> None:
        file = io.BytesIO()
        pq.write_table(kept.kept_rows([url], [data], [None]), file)
        fsspec.filesystem("s3").pipe_file(path, file.getvalue())

    def read() -> bytes | None:
        kept.forget(path)
        return kept.read_kept(path, url)

    keep(b"first")
    store.goes_wrong("GET .*fetched", wrong.throttled)
    assert read() == b"first"
    keep(b"second")
    assert kept.read_kept(path, url) == b"first"
    assert read() == b"second"  # as the next run of this process does
    for fault, said in (
        (wrong.throttled, "the store does not answer"),
        (wrong.expired, "the credentials are not accepted"),
        (wrong.denied, r"access denied \(Access Denied\); check what the credentials may do there"),
    ):
        store.faults.clear()
        store.goes_wrong("GET .*fetched", fault, times=1000)
        with pytest.raises(StoreError, match=said):
            read()
    store.faults.clear()
    fsspec.filesystem("s3").pipe_file(path, b"no Parquet")
    with pytest.raises(SourceError, match="is damaged"):
        read()


def test_credentials_that_expire_end_the_run_in_one_line_and_it_resumes(
    bucket: str, store: Server, source: str
) -> None:
    store.goes_wrong("GET .*/data/i0", wrong.expired, times=1000)
    with pytest.raises(StoreError, match=r"i0\d.png: the credentials are not accepted \(.*expired.*\); renew") as ended:
        clipsieve.run(read=f"{source}/paths.jsonl", out=f"{bucket}/run")
    assert SECRET not in str(ended.value)
    assert "\n" not in str(ended.value)
    store.faults.clear()
    assert clipsieve.run(read=f"{source}/paths.jsonl", out=f"{bucket}/run").counts.images.total == 12


def test_credentials_that_expire_while_it_writes(bucket: str, store: Server, source: str) -> None:
    store.goes_wrong("PUT .*/ledger/", wrong.expired, times=1000)
    with pytest.raises(
        ClipsieveError, match=r"cannot write s3://.*ledger/00000.parquet: .*the credentials are not accepted"
    ):
        clipsieve.run(read=f"{source}/rows0.parquet", out=f"{bucket}/run")


def test_a_missing_image_is_a_verdict_and_one_that_may_not_be_read_too(bucket: str, store: Server, source: str) -> None:
    fsspec.filesystem("s3").rm(f"{source}/i03.png")
    store.goes_wrong("GET .*/data/i04", wrong.denied, times=1000)
    run = clipsieve.run(read=f"{source}/paths.jsonl", out=f"{bucket}/run")
    errors = dict(zip(run.ledger["reference"].to_pylist(), run.ledger["error"].to_pylist(), strict=True))
    assert errors[f"{source}/i03.png"] == "missing: no such file"
    assert errors[f"{source}/i04.png"] == "unreadable: permission denied"
    assert run.counts.images.failed == 3


def test_a_region_that_is_refused_is_no_fault_of_an_image(bucket: str, store: Server, source: str) -> None:
    store.goes_wrong("GET .*/data/i04", wrong.elsewhere, times=1000)
    with pytest.raises(StoreError, match=r"i04.png: the store refuses \(the region 'us-east-1' is wrong\); check the"):
        clipsieve.run(read=f"{source}/paths.jsonl", out=f"{bucket}/run")


def test_a_bucket_that_may_not_be_read(store: Server, source: str) -> None:
    store.goes_wrong(".", wrong.denied, times=1000)
    with pytest.raises(SourceError, match=r"access denied \(Access Denied\); check what the credentials may read"):
        clipsieve.run(read=f"{source}/rows0.parquet", out="s3://bucket/run")


def test_a_source_file_that_vanishes_within_a_run(bucket: str, store: Server, source: str) -> None:
    files = fsspec.filesystem("s3")
    kept = files.cat_file(f"{source}/rows1.parquet")
    gone = wrong.then(lambda: files.rm(f"{source}/rows1.parquet"), before=False)
    store.goes_wrong("PUT .*/run/shards.json", gone)
    with pytest.raises(SourceError, match=r"rows1.parquet: no such file"):
        clipsieve.run(read=f"{source}/rows*.parquet", out=f"{bucket}/run")
    files.pipe_file(f"{source}/rows1.parquet", kept)
    assert clipsieve.run(read=f"{source}/rows*.parquet", out=f"{bucket}/run").counts.images.total == 12


@pytest.mark.parametrize("keep", [["width >= 32"], ["width in top 80%"]], ids=["one pass", "two passes"])
def test_a_listing_that_shows_parts_late_loses_and_doubles_nothing(
    bucket: str, store: Server, source: str, keep: list[str]
) -> None:
    def run(to: str) -> clipsieve.Run:
        return clipsieve.run(read=f"{source}/paths.jsonl", keep=keep, write="webdataset", out=f"{bucket}/{to}")

    whole = run("whole")
    store.goes_wrong("GET .*list-type", listed_late("ledger/00000", "scores/00000"), times=1000)
    assert run("late").counts == whole.counts
    assert run("late").counts == whole.counts  # not seen as done: done again
    store.faults.clear()
    assert run("late").counts == whole.counts
    assert contents(f"{bucket}/late") == contents(f"{bucket}/whole")


def test_a_listing_that_was_kept_is_not_believed(bucket: str, source: str) -> None:
    """Another process, with a filesystem of its own, adds to a folder that this one has listed."""
    folder = storage.place(f"{bucket}/run/ledger")
    assert storage.names(folder) == []
    fsspec.filesystem("s3").ls(source)
    other = fsspec.filesystem("s3", skip_instance_cache=True)
    other.pipe_file(f"{bucket}/run/ledger/00000.parquet", b"x")
    other.pipe_file(f"{source}/rows2.parquet", other.cat_file(f"{source}/rows0.parquet"))
    assert storage.names(folder) == ["00000.parquet"]
    assert storage.exists(folder / "00000.parquet")
    run = clipsieve.run(read=f"{source}/rows*.parquet", out=f"{bucket}/more")
    assert run.counts.images.total == 18


def test_a_range_that_ends_before_it_should_and_an_empty_file(source: str) -> None:
    storage.put(storage.place(f"{source}/empty.png"), b"")
    with pytest.raises(ImageError, match="empty: 0 bytes"):
        ImageSource(path=f"{source}/empty.png").read()
    size = len(storage.read(storage.place(f"{source}/all.bin")))
    with pytest.raises(ImageError, match=f"truncated: 5 of 10 bytes at offset {size - 5}"):
        ImageSource(path=f"{source}/all.bin", offset=size - 5, size=10).read()
    with pytest.raises(ImageError, match="truncated: 0 of 10 bytes"):
        ImageSource(path=f"{source}/all.bin", offset=size + 5, size=10).read()


def test_requests_are_few(bucket: str, store: Server, source: str, tmp_path: Path) -> None:
    """A tar of hundreds of members is streamed; a document's image is one request for its range; a part is one."""
    image = image_bytes("red", (64, 64))
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "many.tar", "w") as tar:
        for number in range(300):
            (tmp_path / "one.png").write_bytes(image)
            tar.add(tmp_path / "one.png", f"{number:04d}.png")
    put(tmp_path / "tars", f"{bucket}/tars")
    store.asked.clear()
    clipsieve.run(read=f"{bucket}/tars/many.tar", out=f"{bucket}/tar-run")
    assert len(store.requests("GET .*/tars/many.tar")) <= 6  # to infer, to find samples, to read and to count them
    store.asked.clear()
    clipsieve.run(read=f"{source}/docs.parquet", out=f"{bucket}/ranges")
    assert len(store.requests("(GET|HEAD) .*/data/all.bin")) == 12
    assert all("bytes=" in request for request in store.requests("/data/all.bin"))
    store.asked.clear()
    assert clipsieve.Run.open(f"{bucket}/ranges").counts.images.total == 12
    assert len(store.requests("/ranges/ledger/00000.parquet")) == 1
    assert len(store.asked) <= 4


def test_a_long_file_is_streamed_by_blocks_and_read_anywhere(
    bucket: str, store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "BLOCK", 1000)
    monkeypatch.setattr(ranges, "PART", 3000)
    data = bytes(range(256)) * 64
    storage.put(storage.place(f"{bucket}/long"), data)
    store.asked.clear()
    with ranges.Stream(f"{bucket}/long", len(data)) as file:
        assert b"".join(iter(lambda: file.read(100), b"")) == data
        assert len(store.requests("GET")) == len(data) // 1000 + 1
        file.seek(5000)
        assert file.read(10_000) == data[5000:15_000]
        file.seek(-7, 2)
        assert file.read() == data[-7:]


def test_uploads_that_a_dead_process_began_are_ended(bucket: str) -> None:
    files, name = fsspec.filesystem("s3"), bucket.removeprefix("s3://")
    others = {"run/output/other.tar", "run/output/00003/00003.tar", "run/mine/a.bin", "elsewhere/00003.tar"}
    for key in ("run/output/00003.tar", "run/summary.json", "run/ledger/00003.parquet", *others):
        files.call_s3("create_multipart_upload", Bucket=name, Key=key)
    named = re.compile(r"\d{5}\.")
    storage.drop_unfinished(storage.place(f"{bucket}/run/output"), named)
    with RunFolder.open(storage.place(f"{bucket}/run"), {}, {}):
        pass
    left = files.call_s3("list_multipart_uploads", Bucket=name)["Uploads"]
    assert {upload["Key"] for upload in left} == others


class RefusalError(Exception):
    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


@pytest.mark.parametrize(
    ("failure", "meant", "tries"),
    [
        (lambda: RefusalError(503, "busy"), StoreError, 4),
        (lambda: TimeoutError("slow"), StoreError, 4),
        (lambda: RefusalError(403, "no"), PermissionError, 1),
        (lambda: RefusalError(401, "who?"), StoreError, 1),
        (lambda: FileNotFoundError("gone"), FileNotFoundError, 1),
        (lambda: RefusalError(418, "https://me:pw@host/x?signature=abc fails"), OSError, 1),
    ],
)
def test_what_failures_mean(
    failure: Callable[[], Exception], meant: type[Exception], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_FIRST_WAIT", 0.0)
    tried = 0

    def work() -> None:
        nonlocal tried
        tried += 1
        raise failure()

    with pytest.raises(meant) as ended:
        retry.retrying("gs://bucket/x", work)
    assert type(ended.value) is meant
    assert tried == tries
    assert not re.search("pw@|signature", str(ended.value))


def test_more_unfinished_uploads_than_a_page_holds() -> None:
    pages = {
        None: {"Uploads": [{"Key": "run/00001.tar", "UploadId": "a"}], "IsTruncated": True,
               "NextKeyMarker": "run/00001.tar", "NextUploadIdMarker": "a"},
        "a": {"Uploads": [{"Key": "run/00002.tar", "UploadId": "b"}], "IsTruncated": False},
    }  # fmt: skip
    ended: list[str] = []

    class Store:
        def call_s3(self, what: str, **about: str) -> object:
            if what == "list_multipart_uploads":
                return pages[about.get("UploadIdMarker")]
            ended.append(about["UploadId"])
            return None

    storage.end_uploads(Store(), "bucket", "run", re.compile(r"\d{5}"))
    assert ended == ["a", "b"]


@pytest.mark.parametrize("endpoint", ["localhost:9000", "http://127.0.0.1:1"])
def test_an_endpoint_that_is_none_is_tried_once(store: Server, tmp_path: Path, endpoint: str) -> None:
    options = {"s3": {**store.options["s3"], "endpoint_url": endpoint}}
    began = time.monotonic()
    with storage.configured(options), pytest.raises(ClipsieveError, match=r"s3://bucket/run.*" + endpoint) as ended:
        clipsieve.Run.open("s3://bucket/run")
    assert time.monotonic() - began < 5
    assert "\n" not in str(ended.value)
