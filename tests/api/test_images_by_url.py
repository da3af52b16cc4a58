"""Images by URL in runs: fetched ahead, each failure a verdict, and with ``keep`` never twice."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import clipsieve
from clipsieve import Run, api
from clipsieve.core import http
from clipsieve.core.downloads import Downloader
from clipsieve.core.layout import INTERLEAVED_SCHEMA
from clipsieve.errors import RecipeError, RunFolderError, StoreError
from clipsieve.recipe import Recipe
from tests.imageserver import RED, ImageServer

LOCAL = {"allow_private": True, "timeout": 2, "retries": 1}
KEEPING = {**LOCAL, "keep": True}
COMMAND = [sys.executable, "-c", "from clipsieve.cli import main; main()"]


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer() as running:
        yield running


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.01)


def rows_of(images: Sequence[str]) -> str:
    """JSON lines of caption rows; the same ones are the same file."""
    path = Path("rows.jsonl")
    rows = "\n".join(json.dumps({"image": image, "caption": "a red thing"}) for image in images)
    if not path.exists() or path.read_text() != rows:
        path.write_text(rows)
    return str(path)


def run(images: Sequence[Any], fetch: Any = LOCAL, *, shards: bool = False, **options: Any) -> Run:
    """A run over caption rows; ``shards`` makes one of every few rows."""
    read = {"path": rows_of(images), **({"shard_bytes": 150} if shards else {})}
    return api.run(**{"read": read, "keep": ["blur >= 1"], "fetch": fetch, **options})


def verdicts(done: Run) -> list[tuple[str, str | None]]:
    return [(row["verdict"], row["error"]) for row in done.ledger.to_pylist()]


def test_each_image_ends_with_a_verdict_and_the_output_holds_the_original_bytes(server: ImageServer) -> None:
    paths = ["image/a.png", "status/?code=404", "image/b.png?x_robots_tag=noai", "image/c.png", "hang/", "image/d.png"]
    done = run([server(path) for path in paths], {**LOCAL, "timeout": 0.3}, write="webdataset:out")
    assert verdicts(done) == [
        ("kept", None),
        ("failed", "not fetched: status 404"),
        ("failed", "refused: opted out (X-Robots-Tag: noai)"),
        ("kept", None),
        ("failed", "not fetched: timed out"),
        ("kept", None),
    ]
    assert done.ledger["reference"][0].as_py() == server("image/a.png")
    with tarfile.open("out/00000.tar") as tar:
        assert [tar.extractfile(m).read() for m in tar if m.name.endswith(".png")] == [RED] * 3  # type: ignore[union-attr]


def test_without_being_asked_nothing_is_fetched_from_this_machine(server: ImageServer) -> None:
    done = run([server("image/a.png")], {})
    assert verdicts(done) == [("failed", "refused: private address")]
    assert server.connections == 0


def test_fetching_can_be_turned_off(server: ImageServer) -> None:
    done = run([server("image/a.png")], False)
    assert verdicts(done) == [("failed", "not fetched: images by URL are turned off; download them first")]
    assert Recipe.load("clipsieve-run/recipe.yaml").fetch is None


def test_no_request_leaves_the_machine_by_another_protocol_either(server: ImageServer) -> None:
    host = server.url.removeprefix("http://")
    done = run([f"webhdfs://{host}/x", f"zip://a.png::ftp://{host}/x", f"github://a:b@{host}/x"], False)
    assert [error for _, error in verdicts(done)] == [
        f"refused: protocol {name}" for name in ("webhdfs", "ftp", "github")
    ]
    assert server.connections == 0


def test_parts_of_files_by_url_are_not_fetched_at_all(server: ImageServer) -> None:
    reference = json.dumps({"path": server("image/a.tar"), "byte_offset": 512, "byte_size": 100})
    rows = [{"sample_id": "a", "position": 0, "modality": "image", "source_ref": reference}]
    pq.write_table(pa.Table.from_pylist(rows, INTERLEAVED_SCHEMA), "documents.parquet")
    done = api.run(read="documents.parquet", keep=["blur >= 1"], fetch=LOCAL)
    assert verdicts(done) == [("failed", "not fetched: a part of a file by URL; download the file first")]
    assert server.connections == 0


def test_what_nobody_reads_of_a_shard_is_let_go_of_with_it(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    close = Downloader.close
    monkeypatch.setattr(Downloader, "close", lambda self: (left.append(len(self._downloads)), close(self)))
    announce = Downloader.prefetch
    beside = server("image/never-read.png")
    monkeypatch.setattr(Downloader, "prefetch", lambda self, urls: announce(self, [*urls, beside]))
    run([server(f"image/{n}.png") for n in range(6)], shards=True)
    assert left == [0]


def test_lists_and_documents_hold_urls_too(server: ImageServer) -> None:
    pq.write_table(pa.table({"images": [[server("image/a.png"), server("status/?code=404")]]}), "lists.parquet")
    lists = api.run(read="lists.parquet", keep=["blur >= 1"], fetch=LOCAL, out="lists")
    assert [row["verdict"] for row in lists.ledger.to_pylist()] == ["kept", "failed"]
    reference = json.dumps({"path": server("image/b.png")})
    rows = [
        {"sample_id": "a", "position": 0, "modality": "text", "text_content": "red"},
        {"sample_id": "a", "position": 1, "modality": "image", "source_ref": reference},
    ]
    pq.write_table(pa.Table.from_pylist(rows, INTERLEAVED_SCHEMA), "documents.parquet")
    documents = api.run(
        read="documents.parquet", keep=["blur >= 1"], fetch=LOCAL, out="documents",
        write={"parquet": "embedded", "embed": True},
    )  # fmt: skip
    assert verdicts(documents) == [("kept", None)]
    assert pq.read_table("embedded")["binary_content"].to_pylist() == [None, RED]


def test_rows_in_memory_hold_urls_too(server: ImageServer) -> None:
    images = {"image": [server("image/a.png"), server("status/?code=404")]}
    assert clipsieve.curate(images, keep=["blur >= 1"], fetch=LOCAL).kept == [0]
    with pytest.raises(RecipeError, match="no run folder to keep images in"):
        clipsieve.curate(images, keep=["blur >= 1"], fetch=KEEPING)


def test_an_image_is_fetched_once_a_run_in_one_pass_and_in_two(server: ImageServer) -> None:
    images = [server(f"image/{n % 3}.png") for n in range(9)]
    run(images, write="webdataset:one", out="one")
    assert [server.asked[f"/image/{n}.png"] for n in range(3)] == [1, 1, 1]
    server.asked.clear()
    run(images, keep=["blur in top 50%"], write="webdataset:two", out="two")
    assert [server.asked[f"/image/{n}.png"] for n in range(3)] == [1, 1, 1]


def test_what_is_kept_is_not_fetched_again(server: ImageServer) -> None:
    images = [server(f"image/{n}.png") for n in range(6)] + [server("again/?code=404")]
    fresh = run(images, KEEPING, shards=True, write="webdataset:out")
    assert max(server.asked.values()) == 1
    shards = sorted(path.name for path in Path("clipsieve-run/fetched").iterdir())
    assert len(shards) > 2
    before = {path: path.read_bytes() for path in Path("clipsieve-run/ledger").iterdir()}
    for path in (*before, Path("clipsieve-run/summary.json")):
        path.unlink()

    again = run(images, LOCAL, shards=True, write="webdataset:out")

    assert {path: path.read_bytes() for path in Path("clipsieve-run/ledger").iterdir()} == before
    assert max(server.asked.values()) == 1  # what was a 404 then stays one
    assert verdicts(again) == verdicts(fresh)
    assert verdicts(again)[6] == ("failed", "not fetched: status 404")


def test_who_reads_the_images_of_a_run_takes_those_that_are_kept(server: ImageServer) -> None:
    first = run([server(f"image/{n}.png") for n in range(4)], KEEPING, shards=True, vectors=True, model="demo")
    server.asked.clear()
    applied = clipsieve.apply_run(first, keep=["clip_score >= -1"], fill=True, write="webdataset:applied")
    deduped = clipsieve.dedup_run(applied, "exact", write="webdataset:deduped")
    for done in (first, applied, deduped):
        done.report()
    assert next(batch.bytes[0] for _, _, batch in deduped.batches()) == RED
    assert deduped.counts.images.kept == 1
    assert not server.asked


def test_a_damaged_file_of_kept_images_is_named(server: ImageServer) -> None:
    run([server("image/a.png")], KEEPING)
    for name in ("ledger/00000.parquet", "summary.json"):
        Path("clipsieve-run", name).unlink()
    Path("clipsieve-run/fetched/00000.parquet").write_bytes(b"nonsense")
    with pytest.raises(clipsieve.ClipsieveError, match=r"00000.parquet is damaged .*remove it and run"):
        run([server("image/a.png")], KEEPING)


def recipe_of(images: Sequence[str], **fetch: Any) -> list[str]:
    """The command of a run in shards of a few images."""
    recipe = {
        "read": {"path": rows_of(images), "shard_bytes": 150},
        "keep": ["blur >= 1"],
        "fetch": {**KEEPING, "timeout": 60, **fetch},
        "write": "webdataset:out",
    }
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    return [*COMMAND, "run", "recipe.yaml", "-q"]


@contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there until the block ends, and no longer."""
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_run_that_is_killed_goes_on_and_fetches_nothing_twice_that_it_has_kept(server: ImageServer) -> None:
    images = [server(f"image/{n}.png") for n in range(9)] + [server(f"held/{n}.png") for n in range(3)]
    command = recipe_of(images)
    with started(command) as process:
        wait_for(lambda: server.asked["/held/0.png"] > 0 and Path("clipsieve-run/fetched/00000.parquet").exists())
        process.kill()
    files = list(Path("clipsieve-run/fetched").glob("[0-9]*.parquet"))
    kept = {url for file in files for url in pq.read_table(file)["url"].to_pylist()}
    assert kept
    server.asked.clear()
    server.open.set()
    subprocess.run(command, check=True)
    assert not {url.removeprefix(server.url) for url in kept} & set(server.asked)
    assert verdicts(Run.open("clipsieve-run")) == [("kept", None)] * 12
    assert not list(Path("clipsieve-run/fetched").glob(".*"))
    assert sorted(pq.read_table("clipsieve-run/fetched")["url"].to_pylist()) == sorted(images)


@pytest.mark.parametrize("keep", [True, False])
def test_ctrl_c_ends_at_once_whatever_servers_do(server: ImageServer, keep: bool) -> None:
    with started(recipe_of([server(f"hang/{n}") for n in range(40)], keep=keep)) as run:
        wait_for(lambda: server.most >= 2)
        began = time.monotonic()
        run.send_signal(signal.SIGINT)
        assert b"interrupted" in run.communicate()[1]
        assert (run.returncode, time.monotonic() - began < 20) == (130, True)  # a server may take 60 s


@pytest.mark.parametrize(
    "command",
    [
        ["apply", "clipsieve-run", "--keep", "width >= 2", "--write", "webdataset:out", "--out", "applied"],
        ["apply", "clipsieve-run", "--keep", "blur >= 0.5", "--fill", "--out", "applied"],
        ["report", "clipsieve-run", "-o", "report.html"],
    ],
)
def test_ctrl_c_ends_at_once_where_images_are_read_again(server: ImageServer, command: list[str]) -> None:
    server.open.set()
    run([server(f"held/{n}.png") for n in range(40)], {**LOCAL, "timeout": 60}, keep=["width >= 1"])
    server.open.clear()
    server.asked.clear()
    with started([*COMMAND, *command]) as again:
        wait_for(lambda: server.asked.total() > 0)
        began = time.monotonic()
        again.send_signal(signal.SIGINT)
        assert b"interrupted" in again.communicate()[1]
        assert (again.returncode, time.monotonic() - began < 20) == (130, True)  # a server may take 60 s


@pytest.mark.parametrize("keep", [True, False])
def test_ctrl_c_among_images_that_come_fast_says_one_line(server: ImageServer, keep: bool) -> None:
    images = [server(f"image/{n}") for n in range(3000)]
    with started(recipe_of(images, keep=keep)) as run:
        wait_for(lambda: len(server.asked) > 300)
        run.send_signal(signal.SIGINT)
        said = run.communicate()[1].decode()
    assert run.returncode == 130
    assert said.count("\n") == 1, said
    assert "interrupted" in said


class Enough(api.Silent):
    """A ``Progress`` that fails when the first images have passed."""

    def advance(self, images: int, committed: bool) -> None:
        raise RuntimeError("enough")


@pytest.mark.parametrize("fetch", [LOCAL, KEEPING])
def test_a_run_that_fails_waits_for_nobody_and_leaves_no_thread(server: ImageServer, fetch: dict[str, Any]) -> None:
    before = set(threading.enumerate())
    images = [server(f"image/{n}.png") for n in range(12)] + [server(f"hang/{n}") for n in range(100)]
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"):
        run(images, {**fetch, "timeout": 60}, shards=True, progress=Enough())
    assert time.monotonic() - began < 10
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("fetch", [LOCAL, KEEPING])
def test_a_run_that_fails_takes_no_image_from_another_one(server: ImageServer, fetch: dict[str, Any]) -> None:
    shared = [server(f"held/{n}.png") for n in range(40)]
    beside = [server(f"image/{n}.png").replace("127.0.0.1", "localhost") for n in range(30)]
    for name, images in (("other", shared), ("failing", beside + shared)):
        Path(f"{name}.jsonl").write_text("\n".join(json.dumps({"image": image}) for image in images))
    options: dict[str, Any] = {"keep": ["blur >= 1"], "fetch": {**fetch, "timeout": 20}}
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(lambda: api.run(read="other.jsonl", out="other", **options))
        wait_for(lambda: server.asked["/held/0.png"] > 0)
        read = {"path": "failing.jsonl", "shard_bytes": 150}
        with pytest.raises(RuntimeError, match="enough"):
            api.run(read=read, out="failing", progress=Enough(), **options)
        server.open.set()
        assert verdicts(other.result()) == [("kept", None)] * 40
    assert sum(server.asked[f"/held/{n}.png"] for n in range(40)) == 40


@pytest.mark.parametrize("fetch", [LOCAL, KEEPING])
def test_a_run_goes_on_when_the_name_server_is_back(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch, fetch: dict[str, Any]
) -> None:
    down = True

    def lookup(*_: Any) -> Any:
        if down:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setitem(Downloader.__init__.__kwdefaults__, "lookup", lookup)
    images = [server(f"image/{n}.png").replace("127.0.0.1", f"h{n}.example") for n in range(30)]
    with pytest.raises(StoreError, match="the name server of this machine seems to be down"):
        run(images, fetch)
    down = False
    assert verdicts(run(images, fetch)) == [("kept", None)] * 30


def test_how_fast_may_change_and_what_is_fetched_may_not(server: ImageServer) -> None:
    images = [server("image/a.png")]
    run(images)
    run(images, {**LOCAL, "per_host": 2, "timeout": 9, "retries": 0, "concurrency": 3, "keep": True})
    for other in ({**LOCAL, "max_bytes": 10}, {**LOCAL, "opt_out": "ignore"}, {}, False):
        with pytest.raises(RunFolderError, match="of another recipe"):
            run(images, other)


def test_a_run_from_before_images_were_fetched_goes_on() -> None:
    Path("good.png").write_bytes(RED)
    run(["good.png"], {})
    recipe = yaml.safe_load(Path("clipsieve-run/recipe.yaml").read_text())
    del recipe["fetch"]
    Path("clipsieve-run/recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run(["good.png"], {}).counts.images.kept == 1


@pytest.mark.parametrize(
    ("fetch", "error"),
    [
        ({"per_hots": 2}, "recipe: unknown key 'fetch.per_hots'; did you mean 'per_host'?"),
        ({"opt_out": "no"}, "recipe: fetch.opt_out: should be 'respect' or 'ignore' (got 'no')"),
        ("yes", "recipe: fetch: should be false, or a mapping such as {per_host: 2} (got 'yes')"),
        (None, "recipe: fetch: should be false, or a mapping such as {per_host: 2} (got None)"),
        ({"per_host": True}, "recipe: fetch.per_host: should be a number (got True)"),
        ({"timeout": float("inf")}, "recipe: fetch.timeout: should be a finite number (got inf)"),
        (
            {"user_agent": "/1.0"},
            "recipe: fetch.user_agent: should begin with a name and hold plain characters only, such as mylab/1.0 "
            "(got '/1.0')",
        ),
        ({"timeout": 0}, "recipe: fetch.timeout: should be greater than 0 (got 0)"),
    ],
)
def test_a_policy_that_cannot_be_is_one_line(fetch: Any, error: str) -> None:
    with pytest.raises(RecipeError) as failure:
        Recipe.build({"read": "a", "fetch": fetch})
    assert str(failure.value) == error


def test_passwords_in_urls_are_in_no_file_of_the_run(server: ImageServer) -> None:
    images = [server(path).replace("://", "://me:s3cret@") for path in ("image/a.png", "status/?code=404")]
    done = run(images, KEEPING, on_error="keep")
    assert done.ledger["reference"].to_pylist() == [image.replace("me:s3cret", "***") for image in images]
    done.report()
    for path in Path("clipsieve-run").rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes(), path
