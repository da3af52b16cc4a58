"""Rules of one's own in Python, over what the recipe's rules leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clipsieve
from clipsieve.core.batch import Batch
from clipsieve.errors import RecipeError, RunFolderError, UsageError
from tests.engines.conftest import Curate
from tests.engines.test_local import BLUE, BLURRED, BROKEN, CAPTIONS, INTERLEAVED, LISTS, RED, captions, document
from tests.engines.test_local import interleaved as documents


@dataclass(frozen=True)
class Own:
    """A filter that gives ``reason`` for the rows that ``goes`` names."""

    name: str
    goes: Callable[[Batch], Sequence[bool]]
    reason: str = "not wanted"

    def __call__(self, batch: Batch) -> Sequence[str | None]:
        return [self.reason if gone else None for gone in self.goes(batch)]


def texts(*unwanted: str) -> Callable[[Batch], Sequence[bool]]:
    return lambda batch: [cell in unwanted for cell in batch.table["text_content"].to_pylist()]


def test_a_filter_sees_what_the_rules_left_with_its_bytes_and_drops_rows_with_a_reason(
    curate: Curate, tmp_path: Path
) -> None:
    seen = []

    def goes(batch: Batch) -> list[bool]:
        seen.extend(zip(batch.table["caption"].to_pylist(), [bytes(image) for image in batch.bytes], strict=True))
        return [caption == "two" for caption in batch.table["caption"].to_pylist()]

    table = captions((RED, "one"), (BLUE, "two"), (BLURRED, "three"), (BROKEN, "four"))
    ledger = curate(table, CAPTIONS, "blur >= 50", filters=[Own("odd", goes)], write={"parquet": str(tmp_path / "out")})
    assert seen == [("one", RED), ("two", BLUE)]
    assert ledger["verdict"].to_pylist() == ["kept", "dropped", "dropped", "failed"]
    assert ledger["rule"].to_pylist() == [None, "odd", "blur >= 50", None]
    assert ledger["reason"].to_pylist()[1] == "not wanted"
    assert pq.read_table(tmp_path / "out")["caption"].to_pylist() == ["one"]


def test_in_a_document_a_row_goes_by_itself(curate: Curate, tmp_path: Path) -> None:
    table = documents(document("a", "first", RED, "second", BLUE, "third"), document("b", RED, "first"))
    blue = Own("blue", lambda batch: [cell == BLUE for cell in batch.table["binary_content"].to_pylist()])
    filters = [Own("words", texts("first", "second")), blue]
    ledger = curate(table, INTERLEAVED, filters=filters, write={"parquet": str(tmp_path / "out")})
    assert ledger["verdict"].to_pylist() == ["kept", "dropped", "kept"]
    assert ledger["rule"].to_pylist() == [None, "blue", None]
    written = pq.read_table(tmp_path / "out")
    assert written["sample_id"].to_pylist() == ["a", "a", "b"]
    assert written["position"].to_pylist() == [0, 1, 0]
    assert written["text_content"].to_pylist() == [None, "third", None]


@pytest.mark.parametrize("parts", [("only words",), (RED, "only words"), ("only words", "only words")])
def test_a_document_of_which_nothing_is_left_goes(curate: Curate, tmp_path: Path, parts: tuple[bytes | str]) -> None:
    table = documents(document("a", *parts), document("b", "stays"))
    own = Own("all of a", lambda batch: [name == "a" for name in batch.table["sample_id"].to_pylist()])
    ledger = curate(table, INTERLEAVED, filters=[own, Own("nothing", texts())], write={"parquet": str(tmp_path / "o")})
    assert ledger["sample_verdict"].to_pylist() == ["dropped", "kept"]
    assert ledger["rule"].to_pylist() == ["all of a", None]
    assert pq.read_table(tmp_path / "o")["sample_id"].to_pylist() == ["b"]


def test_of_a_list_row_all_images_go(curate: Curate) -> None:
    table = pa.table({"images": [[RED, BLUE], [], [RED]], "text": ["x", "x", "y"]})
    own = Own("x", lambda batch: [text == "x" for text in batch.table["text"].to_pylist()])
    ledger = curate(table, LISTS, filters=[own])
    assert ledger["verdict"].to_pylist() == ["dropped", "dropped", "dropped", "kept"]
    assert ledger["sample_verdict"].to_pylist() == ["dropped", "dropped", "dropped", "kept"]
    assert ledger["rule"].to_pylist() == ["x", "x", "x", None]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([None], "gave 1 answers for 2 rows; give one a row"),
        (None, "gave NoneType; give a list with a reason or None for each row"),
        ("no", "gave str; give a list with a reason or None for each row"),
        ([None, True], "gave True for a row; give the reason why it goes, or None"),
        ([None, ""], "gave '' for a row; give the reason why it goes, or None"),
        (pa.array([None, None]), "for a row; give the reason why it goes, or None"),
    ],
)
def test_an_answer_a_row_is_needed(curate: Curate, answers: Any, told: str) -> None:
    class Odd:
        name = "odd"

        def __call__(self, batch: Batch) -> Any:
            return answers

    with pytest.raises(UsageError, match=f"filter odd .*{told}"):
        curate(captions((RED, "a"), (RED, "b")), CAPTIONS, filters=[Odd()])


@pytest.mark.parametrize("filters", [lambda batch: [], [lambda batch: []], [object()], ["blur"]])
def test_what_is_no_filter_is_refused_before_anything_runs(tmp_path: Path, filters: Any) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png"}\n')
    with pytest.raises(RecipeError, match="filter"):
        clipsieve.run(read=str(tmp_path / "rows.jsonl"), filters=filters, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_the_filters_that_it_began_with(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png"}\n')
    run = partial(clipsieve.run, read=str(tmp_path / "rows.jsonl"), out=tmp_path / "run")
    run(filters=[Own("old", lambda batch: [True])])
    run(filters=[Own("old", lambda batch: [True])])
    for filters in ([], [Own("new", lambda batch: [True])]):
        with pytest.raises(RunFolderError, match=r"another recipe \(filters: "):
            run(filters=filters)
