"""Names of runs and sources in a store: any character may be in them, and none of them stands for others."""

from __future__ import annotations

from pathlib import Path

import pytest

import clipsieve
from clipsieve import api
from clipsieve.core import storage
from clipsieve.errors import OutputError, SourceError, StoreError, UsageError
from clipsieve.recipe import Recipe
from tests.storage.conftest import put, write_source
from tests.storage.server import SECRET, Server
from tests.storage.test_runs import ONE_PASS, contents, with_colours

STORES = ("s3", "gs", "az")

TWO_PASSES = {"keep": ["width in top 60%"], "dedup": 0.99999}


@pytest.mark.parametrize("name", ["a b", "a#b", "a%20b", "a?b", "[a]", "a*b", "ä☃"])
def test_a_run_under_any_name_touches_no_other(bucket: str, tmp_path: Path, name: str) -> None:
    if name == "[a]" and bucket.startswith("az"):
        # adlfs takes the first folder for a host when it has written; deeper down it does not.
        with pytest.raises(StoreError, match=r"\[a\]/x: .*IPv[46]"):
            storage.put(storage.place(f"{bucket}/[a]/x"), b"")
        name = "deep/[a]"
    write_source(tmp_path / "data", "")
    decoys = [storage.place(f"{bucket}/{other}/run/staged/kept") for other in ("axb", "a", "a-longer-b", "a%20b+")]
    decoys.append(storage.place(f"{bucket}/{name}/run/staged-too"))
    for decoy in decoys[:-1]:
        storage.put(decoy, b"another's")
    place = f"{bucket}/{name}/run"
    read = f"{tmp_path}/data/rows*.parquet"
    run = with_colours(read, place, **TWO_PASSES)
    storage.put(decoys[-1], b"another's")
    storage.put(storage.place(place) / "staged" / "left", b"over")
    before = contents(place)
    assert with_colours(read, place, **TWO_PASSES).counts == run.counts
    assert contents(place) == before
    assert not storage.exists(storage.place(place) / "staged")
    single = with_colours(read, f"{bucket}/{name}/single", **ONE_PASS)
    assert api.dedup_run(single, 0.99).counts.images.total == 12
    for _ in range(2):
        assert "nearest_similarity" in api.add_score(single, "nearest_similarity").ledger.column_names
    assert all(storage.read(decoy) == b"another's" for decoy in decoys)


def test_a_folder_goes_and_its_neighbours_stay(bucket: str) -> None:
    goes = storage.place(f"{bucket}/rm/st*r/run/staged")
    stays = [storage.place(f"{bucket}/rm/{name}") for name in ("star/run/staged/a", "st*r/run/staged2", "st*r/b")]
    for path in (*stays, goes / "a", goes / "deep" / "b?", goes / "[c]"):
        storage.put(path, b"x")
    storage.remove(goes)
    storage.remove(goes)
    assert not storage.exists(goes)
    assert all(map(storage.exists, stays))
    storage.remove(stays[2])
    assert [storage.exists(path) for path in stays] == [True, True, False]


def test_a_run_of_this_machine_with_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path / "data", "")
    monkeypatch.chdir(tmp_path)
    for out in ("run:1", Path("run-2026-11-21T11:12")):
        run = with_colours("data/rows*.parquet", out, **TWO_PASSES)
        assert run.counts.images.total == 12
        assert clipsieve.Run.open(out).ledger.num_rows == 12
        assert "nearest_similarity" in api.add_score(run, "nearest_similarity").ledger.column_names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://", "s3://: names no bucket; write s3://bucket/run"),
        ("s3:///", "names no bucket"),
        ("s3:///run", "names no bucket"),
        ("s3:/bucket/run", "s3:/bucket/run: did you mean s3://bucket/run?"),
        ("GS:/bucket/run", "did you mean gs://bucket/run?"),
        (Path("s3://bucket/run"), "did you mean s3://bucket/run?"),
        ("ftp://host/run", "ftp:// is not known; s3, gs, az and hf are"),
        ("data:text", None),
        ("./s3:/x", None),
        ("run:1/x", None),
    ],
)
def test_what_is_no_place_of_a_run(text: str | Path, said: str | None) -> None:
    if said is None:
        assert storage.place(storage.place(text)) == storage.place(text)
        assert storage.is_local(storage.place(text))
        return
    with pytest.raises(UsageError) as refused:
        storage.place(text)
    assert said in str(refused.value)


def test_a_protocol_may_be_written_large(bucket: str) -> None:
    protocol, _, name = bucket.partition("://")
    assert storage.place(f"{protocol.upper()}://{name}/Run/") == storage.place(f"{bucket}/Run")


@pytest.mark.parametrize("server", ["s3"], indirect=True)
def test_storage_options_that_nobody_would_use(bucket: str, store: Server, tmp_path: Path) -> None:
    for name in ("s33", "S3"):
        with pytest.raises(UsageError, match=f"storage_options: '{name}' is no protocol; did you mean 's3'") as refused:
            Recipe.build({"read": "x", "storage_options": {name: {"secret": SECRET}}})
        assert SECRET not in str(refused.value)
    wrong = {"s3": {"endpoint_url": store.url, "secrt": SECRET}}
    with storage.configured({}), pytest.raises(clipsieve.ClipsieveError) as ended:
        api.execute(Recipe.build({"read": f"{bucket}/x.csv", "storage_options": wrong}), tmp_path / "run", api.Silent())
    assert str(ended.value) == f"{bucket}/x.csv: storage_options.s3 has no option 'secrt'; check its name"


def test_a_source_that_is_not_there(bucket: str, tmp_path: Path) -> None:
    nowhere = bucket.partition("://")[0] + "://no-such-bucket"
    for path, said in (
        (f"{bucket}/no.csv", f"{bucket}/no.csv: no such file or folder; check the path"),
        (f"{nowhere}/x.csv", f"{nowhere}/x.csv: there is no bucket no-such-bucket; check its name"),
        (f"{bucket}/no*.csv", f"{bucket}/no*.csv: no matching files; check the path, and quote a glob on the"),
    ):
        with pytest.raises(SourceError) as ended:
            clipsieve.run(read=path, out=tmp_path / "run")
        assert str(ended.value).startswith(said)
    with pytest.raises(SourceError, match="gone-run: no such file or folder"):
        clipsieve.label(f"{bucket}/gone-run", labels=["a", "b"])


def test_no_output_goes_into_another_run(bucket: str, tmp_path: Path) -> None:
    write_source(tmp_path / "data", "")
    put(tmp_path / "data", f"{bucket}/data")
    for place in (f"{bucket}/run", f"{tmp_path}/run"):
        clipsieve.run(read=f"{tmp_path}/data/rows*.parquet", out=place)
        for to in (f"jsonl:{place}/vectors/", f"jsonl:{place}/ledger/deep/", f"jsonl:{place}/added/kept.jsonl"):
            with pytest.raises(OutputError, match=f"is within another run, {place}; choose"):
                clipsieve.run(read=f"{tmp_path}/data/rows*.parquet", write=to, out=tmp_path / "new")
