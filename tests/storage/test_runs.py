"""Sources, runs and outputs in an object store: what comes of them is what comes of local ones, to the byte."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

import clipsieve
from clipsieve import api
from clipsieve.core import lock, storage
from clipsieve.errors import OutputError, RunFolderError, SourceError, UsageError
from clipsieve.recipe import Recipe
from tests.fakes import ColourEncoder
from tests.storage.conftest import put, write_source
from tests.storage.server import Server, then

STORES = ("s3", "gs", "az")

RULES = ["width >= 32", "blur >= 100"]
SOURCES = {
    "rows": "rows*.parquet",
    "pairs": "pairs.tar",
    "paths": "paths.jsonl",
    "ranges": "docs.parquet",
}


def contents(place: Path | str) -> dict[str, bytes]:
    """Ledger, vectors and output of a run, by name."""
    if isinstance(place, Path):
        found = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    else:
        files, root = fsspec.core.url_to_fs(place)
        files.invalidate_cache()
        found = {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}
    return {name: data for name, data in found.items() if name.startswith(("ledger/", "vectors/", "output/"))}


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_in_a_bucket_gives_what_a_local_one_gives(bucket: str, tmp_path: Path, source: str) -> None:
    write_source(tmp_path / "here", str(tmp_path / "here"))
    write_source(tmp_path / "there", f"{bucket}/data")
    put(tmp_path / "there", f"{bucket}/data")
    write = "parquet" if source == "ranges" else "webdataset"
    local = clipsieve.run(read=f"{tmp_path}/here/{SOURCES[source]}", keep=RULES, write=write, out=tmp_path / "run")
    remote = clipsieve.run(read=f"{bucket}/data/{SOURCES[source]}", keep=RULES, write=write, out=f"{bucket}/run")
    assert remote.counts == local.counts
    assert remote.counts.images.failed == 1
    of_place = ["reference", "error"]
    tables = [run.ledger.drop_columns(of_place).to_pylist() for run in (remote, local)]
    assert repr(tables[0]) == repr(tables[1])
    if source in ("rows", "pairs"):  # the others' rows tell where the bytes are
        assert output_of(f"{bucket}/run") == output_of(tmp_path / "run")


def output_of(place: Path | str) -> dict[str, bytes]:
    return {name: data for name, data in contents(place).items() if name.startswith("output/")}


def with_colours(read: str, out: str | Path, **options: object) -> clipsieve.Run:
    """A run whose model sees only colours, so that it has vectors."""
    values = {"read": read, "model": "colours", "write": "webdataset", "vectors": True, **options}
    return api.execute(Recipe.build(values), out, api.Silent(), encoder=ColourEncoder())  # type: ignore[arg-type]


ONE_PASS = {"keep": ["clip_score >= 0.3"]}
TWO_PASSES = {"keep": ["width in top 60%"], "dedup": 0.99999}


@pytest.mark.parametrize("recipe", [ONE_PASS, TWO_PASSES], ids=["one pass", "two passes"])
def test_a_run_in_a_bucket_is_the_local_one_to_the_byte(bucket: str, tmp_path: Path, recipe: dict[str, object]) -> None:
    write_source(tmp_path / "data", "")
    read = f"{tmp_path}/data/rows*.parquet"
    with_colours(read, tmp_path / "run", **recipe)
    with_colours(read, f"{bucket}/deep/run", **recipe)
    assert contents(f"{bucket}/deep/run") == contents(tmp_path / "run")
    left = set(storage.names(storage.place(f"{bucket}/deep/run")))
    assert left == {"ledger", "output", "recipe.yaml", "shards.json", "summary.json", "vectors"} | (
        {"scores"} if recipe is TWO_PASSES else set()
    )


def test_what_is_done_with_a_finished_run_is_done_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    write_source(tmp_path / "data", "")
    run = with_colours(f"{tmp_path}/data/pairs.tar", f"{bucket}/run", **ONE_PASS)
    opened = clipsieve.Run.open(f"{bucket}/run/")
    assert opened.counts == run.counts
    assert opened.report() == storage.place(f"{bucket}/run/report.html")
    assert b"<html" in storage.read(opened.report())[:200]
    applied = api.apply_run(opened, [], out=f"{bucket}/wide")
    assert applied.counts.images.kept == 11 > run.counts.images.kept
    assert api.dedup_run(opened, 0.99).path == storage.place(f"{bucket}/run-dedup")
    for times in range(2):
        scored = api.add_score(opened, "nearest_similarity")
        assert "nearest_similarity" in scored.ledger.column_names, times
    names = storage.names(storage.place(f"{bucket}/run/added"))
    assert len(names) == 2  # one attempt, and which one it is


def test_one_file_of_output_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    write_source(tmp_path / "data", "")
    for place in (tmp_path, bucket):
        clipsieve.run(read=f"{tmp_path}/data/rows*.parquet", write=f"jsonl:{place}/kept.jsonl", out=f"{place}/run")
    assert storage.read(storage.place(f"{bucket}/kept.jsonl")) == (tmp_path / "kept.jsonl").read_bytes()


def command(bucket: str, store: Server) -> tuple[list[str], dict[str, str]]:
    arguments = ["run", "--read", f"{bucket}/data/rows*.parquet", "--keep", "width >= 32", "--write", "webdataset"]
    return [
        sys.executable,
        "-c",
        "from clipsieve.cli import main; main()",
        *arguments,
        "--out",
        f"{bucket}/run",
        "--quiet",
    ], os.environ | store.environment


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_a_commit_it_goes_on_where_it_was(bucket: str, store: Server, tmp_path: Path, before: bool) -> None:
    write_source(tmp_path / "data", "")
    put(tmp_path / "data", f"{bucket}/data")
    words, environment = command(bucket, store)
    begun: list[subprocess.Popen[bytes]] = []
    store.goes_wrong("PUT .*/run/ledger/00000", then(lambda: begun[0].kill(), before=before))
    begun.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    said, _ = begun[0].communicate(timeout=60)
    assert begun[0].returncode == -signal.SIGKILL, said.decode()
    assert storage.exists(storage.place(f"{bucket}/run/.lock"))
    read = f"{bucket}/data/rows*.parquet"
    again = clipsieve.run(read=read, keep=["width >= 32"], write="webdataset", out=f"{bucket}/run")
    clipsieve.run(read=read, keep=["width >= 32"], write="webdataset", out=f"{bucket}/whole")
    assert contents(f"{bucket}/run") == contents(f"{bucket}/whole")
    assert again.counts.images.total == 12


def test_a_second_writer_is_refused_until_the_first_is_gone(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = storage.place(f"{bucket}/run/.lock")
    held = lock.locked(path)
    write_source(tmp_path / "data", "")
    with pytest.raises(RunFolderError, match=r"in use by another process \(process \d+ on .*; wait for it"):
        clipsieve.run(read=f"{tmp_path}/data/rows0.parquet", out=f"{bucket}/run")
    held.close()
    assert not storage.exists(path)
    clipsieve.run(read=f"{tmp_path}/data/rows0.parquet", out=f"{bucket}/run")

    elsewhere = b'{"host": "another", "process": 1, "token": "x", "time": %f}'
    storage.put(path, elsewhere % time.time())
    with pytest.raises(BlockingIOError, match=r"process 1 on another, last heard of [0-9]+ s ago"):
        lock.locked(path)
    storage.put(path, elsewhere % (time.time() - lock.STALE - 1))
    lock.locked(path).close()
    assert not storage.exists(path)


def test_who_may_be_dead_is_waited_for(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the head of a cluster has died, and the job begins anew on another."""
    monkeypatch.setattr(lock, "LOOKED", 0.0)
    monkeypatch.setattr(lock, "SETTLED", 0.0)
    path = storage.place(f"{bucket}/run/.lock")
    holder = b'{"host": "another", "process": 1, "token": "x", "time": %f}'
    said: list[str] = []
    read = storage.read

    def at_third_look(happens: Callable[[], None]) -> None:
        looked = 0

        def reading(path: Path) -> bytes:
            nonlocal looked
            looked += 1
            if looked == 3:
                happens()
            return read(path)

        monkeypatch.setattr(storage, "read", reading)

    storage.put(path, holder % time.time())
    at_third_look(lambda: monkeypatch.setattr(lock, "STALE", 0.0))
    lock.locked(path, said.append).close()
    assert re.fullmatch(
        f"{bucket}/run is held by process 1 on another, last heard of 0 s ago: waiting for its end, 300 s at most",
        said[0],
    )
    monkeypatch.setattr(lock, "STALE", 300.0)
    storage.put(path, holder % time.time())
    at_third_look(lambda: storage.put(path, holder % time.time()))
    with pytest.raises(BlockingIOError):
        lock.locked(path, said.append)
    at_third_look(lambda: storage.remove(path))
    lock.locked(path, said.append).close()


def test_a_holder_shows_that_it_lives_and_gives_way_to_who_took_over(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "REFRESHED", 0.02)
    path = storage.place(f"{bucket}/run/.lock")
    held = lock.locked(path)
    first = storage.read(path)
    deadline = time.monotonic() + 5
    while storage.read(path) == first and time.monotonic() < deadline:
        time.sleep(0.02)
    assert storage.read(path) != first
    monkeypatch.setattr(lock, "REFRESHED", 1000.0)
    time.sleep(0.2)
    taken = b'{"host": "another", "process": 1, "token": "x", "time": 0}'
    storage.put(path, taken)
    held.close()
    assert storage.read(path) == taken


def test_the_lock_of_a_process_that_cannot_be_seen_is_not_taken(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container of this host has other processes of the same numbers."""
    monkeypatch.setattr(lock, "SETTLED", 0.0)
    path = storage.place(f"{bucket}/run/.lock")
    dead = subprocess.Popen(["true"])
    dead.wait()
    about = {"host": socket.gethostname(), "process": dead.pid, "token": "x", "time": time.time()}
    for machine in ("", "another boot or namespace"):
        storage.put(path, json.dumps({**about, "machine": machine}).encode())
        with pytest.raises(BlockingIOError):
            lock.locked(path)
    own = lock.locked(storage.place(f"{bucket}/other/.lock"))
    machine = json.loads(storage.read(storage.place(f"{bucket}/other/.lock")))["machine"]
    own.close()
    storage.put(path, json.dumps({**about, "machine": machine}).encode())
    if machine:  # where the system says which processes see each other
        lock.locked(path).close()
        assert not storage.exists(path)


def test_of_two_that_take_over_a_dead_lock_one_has_it(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLED", 0.5)
    path = storage.place(f"{bucket}/run/.lock")
    storage.put(path, b'{"host": "another", "process": 1, "token": "x", "time": 0}')
    both, put = threading.Barrier(2), storage.put

    def at_once(to: Path, data: bytes) -> None:
        both.wait(10)
        put(to, data)

    def take(_: int) -> lock.Lock | None:
        try:
            return lock.locked(path)
        except BlockingIOError:
            return None

    monkeypatch.setattr(storage, "put", at_once)
    with ThreadPoolExecutor(2) as threads:
        held = [one for one in threads.map(take, range(2)) if one]
    assert len(held) == 1
    held[0].close()


def test_a_lock_outlives_trouble_with_its_store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "REFRESHED", 0.01)
    path = storage.place(f"{bucket}/run/.lock")
    held = lock.locked(path)
    asked = threading.Event()

    def denied(_: Path) -> bytes:
        asked.set()
        raise OSError("not now")

    with monkeypatch.context() as trouble:
        trouble.setattr(storage, "read", denied)
        assert asked.wait(5)
    first = storage.read(path)
    deadline = time.monotonic() + 5
    while storage.read(path) == first and time.monotonic() < deadline:
        time.sleep(0.01)
    assert storage.read(path) != first
    monkeypatch.setattr(storage, "read", denied)
    held.close()


def test_storage_options_are_used_and_never_written(bucket: str, store: Server, tmp_path: Path) -> None:
    write_source(tmp_path / "data", "")
    put(tmp_path / "data", f"{bucket}/data")
    fsspec.config.conf.clear()  # what the fixture put there comes from the recipe now
    values = {"read": f"{bucket}/data/rows0.parquet", "storage_options": store.options}
    recipe = Recipe.build(values)
    run = api.execute(recipe, f"{bucket}/run", api.Silent())
    files, root = fsspec.core.url_to_fs(f"{bucket}/run")
    told = [files.cat_file(name) for name in files.find(root)]
    told += [repr(recipe).encode(), repr(run.recipe).encode(), str(recipe.identity()).encode(), repr(run.path).encode()]
    assert not any(store.secret.encode() in one for one in told)
    with pytest.raises(UsageError) as refused:
        Recipe.build({**values, "storage_options": {store.protocol: store.secret}})
    assert store.secret not in str(refused.value)
    # Another run with other options is the same run: they are no part of what it is.
    other = {store.protocol: {**store.options[store.protocol], "use_listings_cache": False}}
    api.execute(Recipe.build({**values, "storage_options": other}), f"{bucket}/run", api.Silent())


def test_a_password_in_a_path_is_refused_and_not_repeated() -> None:
    for values in ({"read": "https://me:secret@host/x.parquet"}, {"read": "x", "write": "jsonl:s3://me:secret@b/out"}):
        with pytest.raises(UsageError, match=r"\*\*\*@.*use storage_options") as refused:
            Recipe.build(values)
        assert "secret" not in str(refused.value)


def test_places_that_no_run_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "az", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'clipsieve\[azure\]'"):
        storage.place("az://bucket/run")
    with pytest.raises(UsageError, match="only read from; give a folder of this machine or of a bucket"):
        storage.place("https://example.org/run")
    with pytest.raises(UsageError, match="s5://bucket/run: s5:// is not known"):
        storage.place("s5://bucket/run")
    assert storage.place("file:///tmp/run") == Path("/tmp/run")


def test_a_folder_that_is_no_run_and_a_bucket_that_is_not_there(bucket: str, tmp_path: Path) -> None:
    write_source(tmp_path / "data", "")
    put(tmp_path / "data", f"{bucket}/data")
    read = f"{tmp_path}/data/rows0.parquet"
    with pytest.raises(RunFolderError, match="data is not empty and not a run folder"):
        clipsieve.run(read=read, out=f"{bucket}/data")
    nowhere = bucket.partition("://")[0] + "://no-such-bucket"
    with pytest.raises(RunFolderError, match=r"no-such-bucket/run as a run folder: there is no bucket no-such-bucket"):
        clipsieve.run(read=read, out=f"{nowhere}/run")
    with pytest.raises(OutputError, match=r"cannot write .*: there is no bucket no-such-bucket; make it, or check its"):
        clipsieve.run(read=read, write=f"jsonl:{nowhere}/out.jsonl", out=tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"no run at .*/nothing"):
        clipsieve.Run.open(f"{bucket}/nothing")
    with pytest.raises(SourceError, match=r"nothing.parquet: no such file or folder; check the path"):
        clipsieve.run(read=f"{bucket}/nothing.parquet", out=tmp_path / "run")
