"""Near duplicates in a run: who is compared, who goes, and what the ledger says of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout
from clipsieve.core.ledger import count
from tests.engines.conftest import Curate
from tests.fakes import image_bytes

CAPTIONS = Layout(kind="captions", image="image", texts=("caption",), sample_id="id")
LISTS = Layout(kind="lists", image="images", texts=("caption",), sample_id="id")
INTERLEAVED = Layout(kind="interleaved")


def rows(*images: bytes) -> pa.Table:
    ids = list("abcdefgh"[: len(images)])
    return pa.table({"id": ids, "image": list(images), "caption": ["red"] * len(images)})


def turned(degrees: float) -> bytes:
    """An image whose colour lies ``degrees`` from red towards green: cosines are those of the angles between."""
    colour = (
        np.array([250 * np.cos(np.radians(degrees)), 250 * np.sin(np.radians(degrees)), 0]).round().astype(np.uint8)
    )
    file = io.BytesIO()
    Image.fromarray(np.broadcast_to(colour, (16, 16, 3)).copy()).save(file, "PNG")
    return file.getvalue()


def told(ledger: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in ledger.select(list(columns)).to_pylist()]


def kept(ledger: pa.Table) -> str:
    """The ids of the samples that stay."""
    pairs = zip(ledger["sample_id"].to_pylist(), ledger["sample_verdict"].to_pylist(), strict=True)
    return "".join(dict.fromkeys(name for name, verdict in pairs if verdict == "kept"))


def test_the_later_of_two_near_duplicates_goes_and_the_ledger_names_the_other(curate: Curate) -> None:
    red, blue = (image_bytes(colour, sharp=False) for colour in ("red", "blue"))
    ledger = curate(rows(red, blue, image_bytes("red", seed=1), blue), CAPTIONS, dedup=0.9)
    assert told(ledger, "verdict", "rule", "nearest", "duplicate_group", "duplicate_of") == [
        ("kept", None, "c#0", 0, None),
        ("kept", None, "d#0", 1, None),
        ("dropped", "dedup 0.9", "a#0", 0, "a#0"),
        ("dropped", "dedup 0.9", "b#0", 1, "b#0"),
    ]
    assert ledger["reason"].to_pylist()[2].startswith("near duplicate of a#0 (cosine ")
    assert ledger["max_similarity"].to_pylist()[1::2] == [1, 1]
    assert count(ledger).dropped_by == {"dedup 0.9": 2}


def test_an_image_that_a_rule_dropped_removes_none(curate: Curate) -> None:
    blurred, sharp = image_bytes("red", sharp=False), image_bytes("red", seed=2)
    ledger = curate(rows(blurred, sharp, image_bytes("green")), CAPTIONS, "blur >= 100", dedup=0.9)
    assert kept(ledger) == "bc"
    assert ledger["max_similarity"][0].as_py() is None  # not compared
    assert ledger["nearest"].to_pylist()[1:] == ["c#0", "b#0"]


def test_a_share_of_the_whole_is_taken_before_near_duplicates_are_sought(curate: Curate) -> None:
    images = [image_bytes("red", (width, 20), seed=width) for width in (30, 60, 50, 40)]
    ledger = curate(rows(*images), CAPTIONS, "width in top 75%", dedup=0.9)
    assert told(ledger, "sample_id", "rule") == [
        ("a", "width in top 75%"),
        ("b", None),
        ("c", "dedup 0.9"),
        ("d", "dedup 0.9"),
    ]


@pytest.mark.parametrize(("links", "left"), [("any", "a"), ("leader", "ac"), ("group", "a")])
def test_links_along_a_chain(curate: Curate, links: str, left: str) -> None:
    # b is near a and near c, which is not near a: 20 degrees are a cosine of 0.94, 40 of 0.77.
    ledger = curate(rows(turned(0), turned(20), turned(40)), CAPTIONS, dedup={"threshold": 0.9, "links": links})
    assert kept(ledger) == left
    assert ledger["duplicate_group"].to_pylist() == [0, 0, 0]
    if links == "any":
        assert ledger["duplicate_of"].to_pylist() == [None, "a#0", None]
        assert ledger["reason"][2].as_py().endswith("of b#0 (cosine 0.9404), which goes too")


@pytest.mark.parametrize(("keep", "left"), [("first", "a"), ("largest", "b"), ("blur", "c")])
def test_the_preferred_one_stays(curate: Curate, keep: str, left: str) -> None:
    small, large, sharp = (image_bytes("red", size, sharp=False) for size in ((20, 20), (40, 40), (30, 30)))
    sharp = image_bytes("red", (30, 30), sharp=True)
    ledger = curate(rows(small, large, sharp), CAPTIONS, dedup={"threshold": 0.9, "keep": keep})
    assert kept(ledger) == left


def document(sample_id: str, *parts: str | bytes) -> list[dict[str, Any]]:
    return [
        {"sample_id": sample_id, "position": position, "modality": "text", "text_content": part}
        if isinstance(part, str)
        else {"sample_id": sample_id, "position": position, "modality": "image", "binary_content": part}
        for position, part in enumerate(parts)
    ]


def test_in_a_document_the_image_alone_goes_or_its_sample(curate: Curate) -> None:
    red, green, blue = (image_bytes(colour, sharp=False) for colour in ("red", "green", "blue"))
    parts = [*document("a", "one", red), *document("b", "two", red, green), *document("c", blue)]
    table = pa.Table.from_pylist(parts, INTERLEAVED_SCHEMA)
    alone = curate(table, INTERLEAVED, dedup=0.9)
    assert told(alone, "sample_id", "image", "verdict") == [
        ("a", 0, "kept"), ("b", 0, "dropped"), ("b", 1, "kept"), ("c", 0, "kept"),
    ]  # fmt: skip
    whole = curate(table, INTERLEAVED, dedup={"threshold": 0.9, "unit": "sample"})
    assert kept(whole) == "ac"
    assert whole["reason"][2].as_py().startswith("sample dropped: near duplicate of a#0")


def test_images_of_one_sample_are_no_duplicates_of_each_other_where_samples_go(curate: Curate) -> None:
    red, green, blue = (image_bytes(colour, sharp=False) for colour in ("red", "green", "blue"))
    table = pa.table({"id": ["a", "b", "c"], "images": [[red, red], [green, red], [blue, green]], "caption": ["x"] * 3})
    ledger = curate(table, LISTS, dedup=0.9)
    assert kept(ledger) == "a"  # c goes because of b, which goes because of a
    assert kept(curate(table, LISTS, dedup={"threshold": 0.9, "links": "leader"})) == "ac"
    assert ledger["duplicate_group"].to_pylist() == [0, 0, 2, 0, None, 2]


def test_a_failed_image_that_stays_is_not_compared(curate: Curate) -> None:
    red = image_bytes("red")
    ledger = curate(rows(red[:60], red, red), CAPTIONS, dedup=0.9, on_error="keep")
    assert told(ledger, "verdict", "nearest") == [("kept", None), ("kept", "c#0"), ("dropped", "b#0")]


@pytest.mark.parametrize(("dedup", "left", "extra"), [("exact", "acd", set()), ("perceptual", "ad", {"min_distance"})])
def test_bytes_and_hashes_need_no_model(curate: Curate, dedup: str, left: str, extra: set[str], tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    images = []
    for quality, pixels in ((95, coarse), (95, coarse), (60, coarse), (95, coarse.T)):
        file = io.BytesIO()
        Image.fromarray(pixels).resize((64, 64)).save(file, "JPEG", quality=quality)
        images.append(file.getvalue())
    ledger = curate(rows(*images), CAPTIONS, dedup=dedup, out=tmp_path / "run")
    assert kept(ledger) == left
    assert extra <= set(ledger.column_names)
    assert "max_similarity" not in ledger.column_names
    assert not (tmp_path / "run" / "vectors").exists()


@pytest.mark.parametrize("dedup", [0.9, {"threshold": 0.9, "links": "leader"}, {"threshold": 0.9, "keep": "largest"}])
def test_the_cut_into_shards_changes_nothing(curate: Curate, dedup: Any) -> None:
    rng = np.random.default_rng(3)
    images = [turned(float(angle)) for angle in rng.uniform(0, 90, 24)]
    table = pa.table({"id": [f"s{i}" for i in range(24)], "image": images, "caption": ["red"] * 24})
    columns = ["sample_id", "verdict", "reason", "max_similarity", "nearest", "duplicate_group", "duplicate_of"]
    whole, *others = (curate(table, CAPTIONS, dedup=dedup, rows_a_shard=n).select(columns) for n in (24, 5, 1))
    assert 0 < count_kept(whole) < 24
    for other in others:
        assert other.to_pylist() == whole.to_pylist()


def count_kept(ledger: pa.Table) -> int:
    return ledger["verdict"].to_pylist().count("kept")


@pytest.mark.parametrize("dedup", [0.9, "exact", "perceptual", {"keep": "largest", "unit": "image", "links": "group"}])
def test_nothing_to_compare_or_a_single_image(curate: Curate, dedup: Any) -> None:
    nothing = curate(rows(image_bytes("red"), image_bytes("red")), CAPTIONS, "width >= 1000", dedup=dedup)
    assert count_kept(nothing) == 0
    assert nothing["nearest"].null_count == 2
    one = curate(rows(image_bytes("red"), image_bytes("red")[:50]), CAPTIONS, dedup=dedup)
    assert told(one, "verdict", "nearest", "duplicate_group") == [("kept", None, None), ("failed", None, None)]
