"""What Google's and Azure's stores and Hugging Face say in ways of their own: one line each, and no image to blame."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import clipsieve
from clipsieve.core import retry, storage
from clipsieve.core.fetch import ImageSource
from clipsieve.errors import ClipsieveError, ImageError, SourceError, StoreError, UsageError
from tests.storage import server as wrong
from tests.storage.conftest import put, write_source
from tests.storage.hub import hub
from tests.storage.server import SECRET, Fault, Server
from tests.storage.test_runs import RULES, SOURCES

STORES = ("gs", "az")


@pytest.fixture
def source(bucket: str, tmp_path: Path) -> str:
    """A source in the bucket."""
    write_source(tmp_path / "data", f"{bucket}/data")
    put(tmp_path / "data", f"{bucket}/data")
    return f"{bucket}/data"


@contextmanager
def a_data_set(folder: Path) -> Iterator[tuple[Server, str]]:
    """The hub, and where a source is in it."""
    write_source(folder / "me" / "set" / "data", "hf://datasets/me/set/data")
    with hub(folder) as store, storage.configured(store.options):
        yield store, "hf://datasets/me/set/data"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients and what is around them try twice, without long waits."""
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    monkeypatch.setattr(retry, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


def make_impatient(store: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(*_: object) -> None: ...

    if store.protocol == "gs":
        monkeypatch.setattr("gcsfs.retry.random.random", lambda: -16.0)  # what it waits longer than twice as long
    else:
        monkeypatch.setattr("azure.storage.blob._shared.policies_async.AsyncStorageRetryPolicy.sleep", at_once)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            wrong.unknown,
            r"the credentials are not accepted \(Authentication information is not valid\.(, 401)?\); renew",
        ),
        (wrong.throttled, r"the store does not answer \(Please reduce your request rate\.(, 503)?\); when it does"),
        (wrong.reset, r"the store does not answer \(.+\); when it does, run the same command again"),
    ],
)
def test_trouble_of_the_store_ends_the_run_in_one_line_and_it_resumes(
    bucket: str, store: Server, source: str, fault: Fault, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_impatient(store, monkeypatch)
    run = {"read": f"{source}/paths.jsonl", "keep": ["width >= 32"], "out": f"{bucket}/run"}
    for request in ("GET .*i05", "PUT .*/ledger/"):
        store.goes_wrong(request, fault, times=1000)
        with pytest.raises(ClipsieveError, match=said) as ended:
            clipsieve.run(**run)  # type: ignore[arg-type]
        assert "\n" not in str(ended.value)
        assert store.secret not in str(ended.value) or store.protocol == "gs"
        store.faults.clear()
    assert clipsieve.run(**run).counts.images.failed == 1  # type: ignore[arg-type]


def test_what_may_not_be_read_and_what_is_gone_are_verdicts(bucket: str, store: Server, source: str) -> None:
    storage.remove(storage.place(f"{source}/i03.png"))
    store.goes_wrong("GET .*data(/|%2F)i04", wrong.denied, times=1000)
    run = clipsieve.run(read=f"{source}/paths.jsonl", out=f"{bucket}/run")
    errors = dict(zip(run.ledger["reference"].to_pylist(), run.ledger["error"].to_pylist(), strict=True))
    assert errors[f"{source}/i03.png"] == "missing: no such file"
    assert errors[f"{source}/i04.png"] == "unreadable: permission denied"
    store.goes_wrong(".", wrong.denied, times=1000)
    with pytest.raises(SourceError, match=r"access denied \(.+\); check what the credentials may read"):
        clipsieve.run(read=f"{source}/rows0.parquet", out=f"{bucket}/other")
    with pytest.raises(StoreError, match=r"access denied \(.+\); check what the credentials may do there"):
        clipsieve.Run.open(f"{bucket}/run")


def test_a_range_that_ends_before_it_should_and_an_empty_file(source: str) -> None:
    storage.put(storage.place(f"{source}/empty.png"), b"")
    assert storage.read(storage.place(f"{source}/empty.png")) == b""
    with pytest.raises(ImageError, match="empty: 0 bytes"):
        ImageSource(path=f"{source}/empty.png").read()
    size = len(storage.read(storage.place(f"{source}/all.bin")))
    for start, left in ((size - 5, 5), (size + 5, 0)):
        with pytest.raises(ImageError, match=f"truncated: {left} of 10 bytes at offset {start}"):
            ImageSource(path=f"{source}/all.bin", offset=start, size=10).read()


@pytest.mark.parametrize("server", ["az"], indirect=True)
def test_a_key_that_is_wrong_and_a_connection_that_is_none(bucket: str, store: Server, source: str) -> None:
    store.goes_wrong(".", wrong.mistaken, times=1000)
    with pytest.raises(StoreError, match=r"the credentials are not accepted \(.+\); renew or set them"):
        clipsieve.run(read=f"{source}/paths.jsonl", out=f"{bucket}/run")
    said = (
        r"^az://bucket/run: the store cannot be used \(.*Connection string.*\); set AZURE_STORAGE_CONNECTION_STRING or"
    )
    options = {"az": {"connection_string": f"AccountName=x;{SECRET}"}}
    with storage.configured(options), pytest.raises(UsageError, match=said) as ended:
        clipsieve.Run.open("az://bucket/run")
    assert SECRET not in str(ended.value)


@pytest.mark.parametrize("server", ["gs"], indirect=True)
def test_a_failure_that_is_told_is_not_logged_too(store: Server, source: str, tmp_path: Path) -> None:
    store.goes_wrong("GET .*i05", wrong.unknown, times=1000)
    with pytest.raises(StoreError):
        clipsieve.run(read=f"{source}/paths.jsonl", out=tmp_path / "run")
    assert logging.getLogger("gcsfs").handlers, "Python itself would print its traceback"


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_on_the_hub_gives_what_a_local_one_gives(tmp_path: Path, source: str) -> None:
    write_source(tmp_path / "here", str(tmp_path / "here"))
    with a_data_set(tmp_path / "hub") as (_, there):
        local = clipsieve.run(read=f"{tmp_path}/here/{SOURCES[source]}", keep=RULES, out=tmp_path / "local")
        remote = clipsieve.run(read=f"{there}/{SOURCES[source]}", keep=RULES, out=tmp_path / "remote")
    assert remote.counts == local.counts
    of_place = ["reference", "error"]
    tables = [run.ledger.drop_columns(of_place).to_pylist() for run in (remote, local)]
    assert repr(tables[0]) == repr(tables[1])


@pytest.mark.parametrize("name", ["a b", "a#b", "a%20b", "[a]", "ä☃", "a@b"])
def test_names_on_the_hub(tmp_path: Path, name: str) -> None:
    with a_data_set(tmp_path / "hub") as (_, there):
        (tmp_path / "hub" / "me" / "set" / name).mkdir()
        for part in ("rows0.parquet", "rows1.parquet"):
            (tmp_path / "hub/me/set/data" / part).rename(tmp_path / "hub/me/set" / name / part)
        for read in (f"hf://datasets/me/set/{name}", f"hf://datasets/me/set@main/{name}/rows1.parquet"):
            run = clipsieve.run(read=read, out=tmp_path / f"run{read.count('.')}")
            assert run.counts.images.total == (6 if read.endswith(".parquet") else 12)
        with pytest.raises(SourceError, match=r"no\.csv: no such file or folder; check the path"):
            clipsieve.run(read=f"{there}/no.csv", out=tmp_path / "none")


@pytest.mark.usefixtures("impatient")
def test_what_the_hub_refuses(tmp_path: Path) -> None:
    with a_data_set(tmp_path / "hub") as (store, there):
        for read, said in (
            ("hf://datasets/me/no/x.csv", "there is no repository datasets/me/no; check its name, and HF_TOKEN where"),
            ("hf://datasets/x.csv", "cannot be read: .*Repository id must be 'namespace/name'"),
        ):
            with pytest.raises(SourceError, match=said):
                clipsieve.run(read=read, out=tmp_path / "run")
        with pytest.raises(StoreError, match=r"hf://run/.*: Repository id must be 'namespace/name'"):
            clipsieve.Run.open("hf://run")
        for fault, said in (
            (wrong.unknown, r"the credentials are not accepted \(.*401 Unauthorized.*\); renew or set them"),
            (wrong.throttled, r"the store does not answer \(.*503.*\); when it does"),
            (wrong.reset, r"the store does not answer \(.*disconnected.*\); when it does"),
        ):
            store.goes_wrong("GET .*resolve.*i05", fault, times=1000)
            with pytest.raises(StoreError, match=said) as ended:
                clipsieve.run(read=f"{there}/paths.jsonl", out=tmp_path / "run")
            assert "\n" not in str(ended.value)
            assert SECRET not in str(ended.value)
            store.faults.clear()
        store.goes_wrong("GET .*resolve.*i05", wrong.denied, times=1000)
        (tmp_path / "hub/me/set/data/i03.png").unlink()
        run = clipsieve.run(read=f"{there}/paths.jsonl", out=tmp_path / "run")
    errors = dict(zip(run.ledger["reference"].to_pylist(), run.ledger["error"].to_pylist(), strict=True))
    assert errors[f"{there}/i03.png"] == "missing: no such file"
    assert errors[f"{there}/i05.png"] == "unreadable: permission denied"
    nowhere = {"hf": {"endpoint": "http://127.0.0.1:1"}}
    with storage.configured(nowhere), pytest.raises(StoreError, match=r"does not answer \(\[Errno 111\]"):
        clipsieve.run(read=f"{there}/rows0.parquet", out=tmp_path / "other")
