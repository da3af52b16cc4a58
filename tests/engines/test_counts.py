"""Counts reconcile, whatever is in the source: a property over generated documents with random faults."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.core import ledger
from tests.engines.conftest import curate_table
from tests.engines.test_local import BLURRED, BROKEN, INTERLEAVED, document, interleaved
from tests.fakes import image_bytes

PARTS = [
    image_bytes("red"),
    image_bytes("blue"),
    BLURRED,
    BROKEN,
    b"",
    b"not an image",
    "a red thing",
    "words " * 30,
    " ",
]
RULES = ["blur >= 100", "clip_score >= 0.5", "0.001 <= image_text_ratio <= 0.5", "any(width) >= 10", "width in top 50%"]


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5), min_size=1, max_size=8),
    keep=st.lists(st.sampled_from(RULES), max_size=4, unique=True),
    drop=st.sampled_from([None, "sample"]),
    on_error=st.sampled_from(["drop", "drop-sample", "keep"]),
    kept_ratio=st.booleans(),
    score_all=st.booleans(),
)
def test_every_image_and_sample_has_one_verdict(
    documents: list[list[bytes | str]],
    keep: list[str],
    drop: str | None,
    on_error: str,
    kept_ratio: bool,
    score_all: bool,
) -> None:
    table = interleaved(*[document(f"d{i}", *parts) for i, parts in enumerate(documents)])
    options = {"scores": {"image_text_ratio": {"count": "kept"}}} if kept_ratio else {}
    rules = [{"rule": rule, "drop": drop} if rule.startswith("blur") else rule for rule in keep]
    with TemporaryDirectory() as folder:
        found = curate_table(
            table, INTERLEAVED, *rules, out=Path(folder) / "run", rows_a_shard=10_000, write="parquet",
            on_error=on_error, score_all=score_all, **options,
        )  # fmt: skip

    images = sum(isinstance(part, bytes) for parts in documents for part in parts)
    counts = ledger.count(found)
    assert (counts.images.total, counts.samples.total) == (images, len(documents))
    assert sum(counts.dropped_by.values()) <= counts.images.dropped
    dropped = found.filter(pc.equal(found["verdict"], "dropped"))
    assert dropped["reason"].null_count == 0
    failed = found.filter(pc.equal(found["verdict"], "failed"))
    assert failed["error"].null_count == 0
