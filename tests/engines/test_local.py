"""The local engine: what it decides, what it writes, and what may not change its results."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.core.batch import Batch
from clipsieve.core.fetch import ImageSource
from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout
from clipsieve.errors import CountsError
from tests.engines.conftest import Curate
from tests.fakes import ColourEncoder, image_bytes

CAPTIONS = Layout(kind="captions", image="image", texts=("caption",), sample_id="id")
LISTS = Layout(kind="lists", image="images", texts=("text",))
INTERLEAVED = Layout(kind="interleaved")


def captions(*rows: tuple[bytes | None, str | None]) -> pa.Table:
    return pa.table(
        {
            "id": [f"s{i}" for i in range(len(rows))],
            "image": pa.array([image for image, _ in rows], pa.binary()),
            "caption": [text for _, text in rows],
        }
    )


def document(sample_id: str, *parts: bytes | str) -> list[dict[str, object]]:
    return [
        {
            "sample_id": sample_id,
            "position": position,
            "modality": "text" if isinstance(part, str) else "image",
            "text_content": part if isinstance(part, str) else None,
            "binary_content": part if isinstance(part, bytes) else None,
        }
        for position, part in enumerate(parts)
    ]


def interleaved(*documents: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist([row for rows in documents for row in rows], schema=INTERLEAVED_SCHEMA)


RED, BLUE = image_bytes("red"), image_bytes("blue")
BLURRED = image_bytes("red", sharp=False)
BROKEN = RED[:60]


def test_each_caption_row_ends_with_a_verdict_and_a_reason(curate: Curate) -> None:
    table = captions(
        (RED, "a red thing"),
        (BLUE, "a red thing"),
        (BLURRED, "a red thing"),
        (BROKEN, "a red thing"),
        (RED, " "),
        (None, "nothing to see"),
    )
    ledger = curate(table, CAPTIONS, "blur >= 100", "clip_score >= 0.8")
    assert ledger["verdict"].to_pylist() == ["kept", "dropped", "dropped", "failed", "dropped", "failed"]
    reasons = ledger["reason"].to_pylist()
    assert reasons[1].startswith("clip_score 0.")
    assert reasons[2] == "blur 0 < 100"
    assert reasons[4] == "clip_score missing: no text"
    assert ledger["error"].to_pylist()[5] == "no image: the cell is null"
    assert ledger["error"].to_pylist()[3].startswith("undecodable: ")


def test_an_image_dropped_by_a_cheap_rule_is_never_encoded(curate: Curate) -> None:
    table = captions((RED, "red"), (BLURRED, "red"), (BLUE, "blue"))
    encoder = ColourEncoder()
    ledger = curate(table, CAPTIONS, "clip_score >= 0", "blur >= 100", encoder=encoder)
    assert sum(encoder.image_batches) == 2
    assert ledger["clip_score"].to_pylist()[1] is None  # not computed


def test_score_all_computes_every_score_with_the_same_verdicts(curate: Curate) -> None:
    table = captions((RED, "red"), (BLURRED, "red"), (BLUE, "red"), (BROKEN, "red"))
    rules = ("blur >= 100", "clip_score >= 0.8")
    early, everything = curate(table, CAPTIONS, *rules), curate(table, CAPTIONS, *rules, score_all=True)
    for column in ("verdict", "rule", "reason"):
        assert early[column].to_pylist() == everything[column].to_pylist()
    assert everything["clip_score"].null_count == 0


def test_batches_are_filled_across_samples_and_equal_texts_encoded_once(curate: Curate) -> None:
    table = captions(*[(image_bytes("red", seed=i), "red" if i % 2 else "blue") for i in range(16)])
    encoder = ColourEncoder()
    curate(table, CAPTIONS, "clip_score >= -1", encoder=encoder, rows_a_shard=16, batch_size=6)
    assert encoder.image_batches == [6, 6, 4]
    assert encoder.text_batches == [["red", "blue"]]


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 7}, {"workers": 1}, {"workers": 5}])
def test_batch_size_and_workers_change_nothing(curate: Curate, change: dict[str, int]) -> None:
    rows = [(image_bytes(colour, seed=i), colour) for i in range(7) for colour in ("red", "blue")]
    table = captions(*rows, (BROKEN, "red"), (BLURRED, "red"))
    rules = ("blur >= 100", "clip_score >= 0.5", "qr_code <= 0.05")
    usual, other = curate(table, CAPTIONS, *rules), curate(table, CAPTIONS, *rules, **change)
    # repr, because NaN (the blur of a broken image) equals itself there
    assert repr(usual.drop_columns("clip_score").to_pylist()) == repr(other.drop_columns("clip_score").to_pylist())
    np.testing.assert_allclose(usual["clip_score"].to_numpy(), other["clip_score"].to_numpy(), atol=1e-5)


def test_a_document_loses_only_the_dropped_image_and_is_renumbered(curate: Curate, tmp_path: Path) -> None:
    table = interleaved(
        document("a", "a red thing", RED, BLURRED, "more text"),
        document("b", BLURRED),
        document("c", "no image here"),
    )
    ledger = curate(table, INTERLEAVED, "blur >= 100", rows_a_shard=99, out=tmp_path / "run", write="parquet")
    assert ledger["verdict"].to_pylist() == ["kept", "dropped", "dropped", "kept"]
    assert ledger["sample_verdict"].to_pylist() == ["kept", "kept", "dropped", "kept"]
    written = pq.read_table(tmp_path / "run" / "output" / "00000.parquet")
    assert written["sample_id"].to_pylist() == ["a", "a", "a", "c"]
    assert written["position"].to_pylist() == [0, 1, 2, 0]
    assert written["binary_content"].to_pylist() == [None, RED, None, None]


def test_the_ratio_counts_source_images_or_those_kept_by_the_rules_before_it(curate: Curate) -> None:
    table = interleaved(document("a", "four words in all", RED, BLURRED, BLURRED))
    ratio = "image_text_ratio <= 0.5"
    source = curate(table, INTERLEAVED, "blur >= 100", ratio, rows_a_shard=99)
    assert source["image_text_ratio"].to_pylist() == [0.75] * 3
    kept = curate(
        table, INTERLEAVED, "blur >= 100", ratio, rows_a_shard=99, scores={"image_text_ratio": {"count": "kept"}}
    )
    assert (kept["image_text_ratio"].to_pylist(), kept["verdict"].to_pylist()) == (
        [0.25] * 3,
        ["kept", "dropped", "dropped"],
    )
    first = curate(
        table, INTERLEAVED, ratio, "blur >= 100", rows_a_shard=99, scores={"image_text_ratio": {"count": "kept"}}
    )
    assert first["image_text_ratio"].to_pylist() == [0.75] * 3


def test_pairs_keep_their_score_on_the_first_image(curate: Curate) -> None:
    table = pa.table({"images": [[RED, RED], [RED, BLUE], [RED, BROKEN], [RED]], "text": ["a", "b", "c", "d"]})
    ledger = curate(table, LISTS, "any(pair_similarity) >= 0.9")
    values = ledger["pair_similarity"].to_pylist()
    assert (values[0], values[1]) == ([1.0], [])
    assert ledger["sample_verdict"].to_pylist() == ["kept"] * 2 + ["dropped"] * 5
    assert ledger["reason"].to_pylist()[-1] == "sample dropped: any(pair_similarity) missing: fewer than two images"


def test_a_share_of_the_whole_data_set_takes_two_passes(curate: Curate, tmp_path: Path) -> None:
    table = captions(*[(image_bytes("red", size=(20 + i, 20), seed=i), "red") for i in range(10)], (BLURRED, "red"))
    ledger = curate(
        table, CAPTIONS, "width in top 30%", "blur >= 100",
        rows_a_shard=4, out=tmp_path / "run", write={"webdataset": str(tmp_path / "out")},
    )  # fmt: skip
    assert ledger["verdict"].to_pylist() == ["dropped"] * 7 + ["kept"] * 3 + ["dropped"]
    assert ledger["reason"].to_pylist()[0] == "width 20 not in top 30% (cut at 27)"
    assert not (tmp_path / "run" / "staged").exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00001.tar", "00002.tar"]


def test_a_share_gives_a_missing_value_its_stand_in_and_failed_images_no_place(curate: Curate) -> None:
    table = captions((BROKEN, "red"), (RED, "red"), (RED, None), (RED, "blue"))
    rule = {"rule": "clip_score in top 50%", "missing": 1}
    ledger = curate(table, CAPTIONS, rule, on_error="keep")
    assert ledger["verdict"].to_pylist() == ["kept", "kept", "kept", "dropped"]
    tied = curate(captions((RED, "red"), (RED, "red")), CAPTIONS, "width in top 50%")
    assert tied["reason"].to_pylist()[1] == "width 64 not in top 50% (cut at 64, where earlier ones go first)"


def test_documents_of_one_id_stay_two_when_those_between_go(curate: Curate, tmp_path: Path) -> None:
    table = interleaved(document("a", RED, "one two"), document("b", RED, "one"), document("a", BLUE, "three four"))
    ledger = curate(
        table, INTERLEAVED, "words >= 2", "width in top 100%", rows_a_shard=9, write="webdataset", out=tmp_path / "run"
    )
    assert ledger["sample_verdict"].to_pylist() == ["kept", "dropped", "kept"]
    with tarfile.open(tmp_path / "run" / "output" / "00000.tar") as tar:
        assert tar.getnames() == ["a.json", "a.0.png", "a~2.json", "a~2.0.png"]


def test_a_failed_row_is_counted_and_its_neighbours_are_untouched(curate: Curate) -> None:
    table = captions((RED, "red"), (None, None), (RED, "red"))
    ledger = curate(table, CAPTIONS, "blur >= 100", errors={1: "malformed JSON at line 2"})
    assert ledger["verdict"].to_pylist() == ["kept", "failed", "kept"]
    assert ledger["error"].to_pylist()[1] == "malformed JSON at line 2"


def test_on_error_stop_names_the_row_and_the_remedy(curate: Curate) -> None:
    with pytest.raises(CountsError, match=r"stopped at shard 0, row 1 \(inline image\): undecodable.*--on-error drop"):
        curate(captions((RED, "red"), (BROKEN, "red")), CAPTIONS, on_error="stop")


def test_on_error_keep_keeps_the_row_and_says_so(curate: Curate, tmp_path: Path) -> None:
    table = captions((RED, "red"), (BROKEN, "red"))
    ledger = curate(table, CAPTIONS, "blur >= 100", on_error="keep", write="jsonl", out=tmp_path / "run")
    assert ledger["verdict"].to_pylist() == ["kept", "kept"]
    assert ledger["error"].to_pylist()[1].startswith("undecodable")
    lines = (tmp_path / "run" / "output" / "00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["s0", "s1"]


def test_vectors_line_up_with_the_ledger(curate: Curate, tmp_path: Path) -> None:
    table = captions((RED, "a red thing"), (BLURRED, "red"), (BLUE, "a blue thing"))
    ledger = curate(table, CAPTIONS, "blur >= 100", "clip_score >= 0.8", vectors=True, out=tmp_path / "run")
    images = np.load(tmp_path / "run" / "vectors" / "00000.image.npy")
    texts = np.load(tmp_path / "run" / "vectors" / "00000.text.npy")
    assert images.shape == texts.shape == (3, 3)
    assert np.isnan(images[1]).all()
    cosines = (images * texts).sum(axis=1)[[0, 2]]
    np.testing.assert_allclose(cosines, ledger["clip_score"].drop_null().to_numpy(), atol=1e-5)


def test_scores_can_be_added_to_the_output(curate: Curate, tmp_path: Path) -> None:
    table = captions((RED, "red"), (BLURRED, "red"))
    write = {"format": "parquet", "scores": True}
    curate(table, CAPTIONS, "blur >= 100", "words >= 1", write=write, out=tmp_path / "run")
    written = pq.read_table(tmp_path / "run" / "output" / "00000.parquet")
    assert written.column_names == ["id", "image", "caption", "blur", "words"]
    assert written["words"].to_pylist() == [1.0]


def test_samples_per_shard_splits_the_output(curate: Curate, tmp_path: Path) -> None:
    table = captions(*[(RED, "red")] * 5)
    write = {"format": "webdataset", "samples_per_shard": 2}
    curate(table, CAPTIONS, write=write, out=tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "output").iterdir())
    assert names == ["00000-0000.tar", "00000-0001.tar", "00000-0002.tar"]


def test_lists_keep_their_broken_images_through_two_passes(curate: Curate, tmp_path: Path) -> None:
    table = pa.table({"images": [[RED, None, BLUE], [None], None, [BLUE]], "text": ["a", "b", "c", "d"]})
    ledger = curate(
        table, LISTS, "width in top 100%", on_error="keep", write={"format": "parquet", "scores": True},
        errors={2: "malformed JSON at line 3"}, out=tmp_path / "run",
    )  # fmt: skip
    assert ledger["verdict"].to_pylist() == ["kept"] * 6
    written = pq.read_table(tmp_path / "run" / "output" / "00000.parquet")
    assert written["images"].to_pylist() == table["images"].to_pylist()
    assert [len(widths) for widths in written["width"].to_pylist()] == [3, 1, 1, 1]


def test_a_broken_file_that_is_kept_is_written_as_it_was(curate: Curate, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(BROKEN)
    table = pa.table({"id": ["a"], "image": [str(tmp_path / "broken.png")], "caption": ["red"]})
    for number, rule in enumerate(("width >= 1", "width in top 100%")):
        out = tmp_path / f"kept{number}"
        curate(table, CAPTIONS, rule, on_error="keep", write="webdataset", out=out)
        with tarfile.open(out / "output" / "00000.tar") as tar:
            member = tar.extractfile("a.png")
            assert member is not None
            assert member.read() == BROKEN


def test_two_passes_fetch_an_image_once(curate: Curate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    reads = []
    read = ImageSource.read

    def counted(source: ImageSource) -> bytes:
        reads.append(source.path)
        return read(source)

    monkeypatch.setattr(ImageSource, "read", counted)
    table = pa.table({"id": ["a"], "image": [str(tmp_path / "red.png")], "caption": ["red"]})
    curate(table, CAPTIONS, "width in top 100%", write={"format": "parquet", "scores": True})
    assert len(reads) == 1


def test_pairs_are_not_made_where_no_rule_asks(curate: Curate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batch, "pairs", property(lambda batch: pytest.fail("a large document has very many")))
    table = interleaved(document("a", RED, RED, "text"))
    assert curate(table, INTERLEAVED, "all(width) >= 1", rows_a_shard=9)["verdict"].to_pylist() == ["kept", "kept"]
