"""Other rules for a finished run: the same as a fresh run with them, without computing a score twice."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import clipsieve
from clipsieve import Run, apply_run, demo
from clipsieve.errors import ClipsieveError

RULES: list[Any] = [
    "blur >= 100", "blur >= 1500", "width >= 400", "qr_code <= 0.05", "clip_score >= 0.5", "clip_score >= 0.58",
    "any(clip_score) >= 0.58", "all(width) >= 300", {"rule": "clip_score >= 0.58", "missing": 1}, "words >= 10",
    "0.001 <= image_text_ratio <= 0.1", {"rule": "blur >= 1500", "drop": "sample"}, "any(pair_similarity) >= 0.99",
    "clip_score in top 70%", "width in top 50%",
]  # fmt: skip
STRICT = ["blur >= 1400", "clip_score >= 0.57"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    demo.generate(folder, documents=24, pairs=40)
    return folder


@pytest.fixture(scope="module")
def strict(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Caption rows under strict rules, with early exit."""
    return clipsieve.run(
        read=str(data / "pairs.jsonl"), model="demo", keep=STRICT,
        write="webdataset", vectors=True, out=tmp_path_factory.mktemp("runs") / "strict",
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}


def verdicts(run: Run) -> list[dict[str, Any]]:
    names = ["shard", "row", "image", "sample", "sample_id", "reference", "verdict", "rule", "reason", "error"]
    return list(run.ledger.select([*names, "sample_verdict", "has_text"]).to_pylist())


@pytest.mark.parametrize("seed", range(16))
def test_any_rules_give_what_a_fresh_run_with_them_gives(data: Path, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    documents = dice.random() < 0.6
    read = str(data / ("documents.parquet" if documents else "pairs.jsonl"))
    before, after = (dice.sample(RULES, dice.randrange(1, 5)) for _ in range(2))
    options: dict[str, Any] = {
        "read": read, "model": "demo", "vectors": dice.random() < 0.5,
        "on_error": dice.choice(["drop", "drop-sample", "keep"]), "dedup": dice.choice([None, demo.DEDUP]),
        "scores": {"image_text_ratio": {"count": dice.choice(["source", "kept"])}},
        "limit": dice.choice([None, None, 13]),
    }  # fmt: skip
    write = {"format": "parquet" if documents else "webdataset", "scores": dice.random() < 0.4}
    options["write"] = {**write, "samples_per_shard": dice.choice([None, 5])}
    clipsieve.run(**options, keep=before, out=tmp_path / "before")
    fresh = clipsieve.run(**options, keep=after, out=tmp_path / "fresh")
    applied = apply_run(tmp_path / "before", after, out=tmp_path / "applied", fill=True)
    assert verdicts(applied) == verdicts(fresh)
    assert contents(tmp_path / "applied" / "output") == contents(tmp_path / "fresh" / "output")
    again = apply_run(applied, out=tmp_path / "again")  # its own rules, and nothing is lacking any more
    assert verdicts(again) == verdicts(fresh)


def test_stricter_rules_decode_no_image_and_need_no_model(
    strict: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("clipsieve.core.batch.decode", never)
    monkeypatch.setattr("clipsieve.encoders.load", never)
    applied = apply_run(strict, ["blur >= 1600", "clip_score >= 0.58"], out=tmp_path / "applied")
    assert 0 < applied.counts.images.kept < strict.counts.images.kept
    assert applied.output is not None
    assert list(applied.output.iterdir())


def test_looser_rules_are_refused_with_the_number_of_images_that_lack_scores(strict: Run, tmp_path: Path) -> None:
    with pytest.raises(ClipsieveError, match=r"lacks clip_score of \d+ images, .* --fill computes those"):
        apply_run(strict, ["blur >= 100", "clip_score >= 0.57"], out=tmp_path / "applied")
    assert not (tmp_path / "applied").exists()


def test_filling_computes_just_what_is_lacking(strict: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that a looser rule now lets pass are decoded and encoded, and no others."""
    from clipsieve.core import batch

    decoded = []
    real = batch.decode
    monkeypatch.setattr(batch, "decode", lambda data, **options: decoded.append(1) or real(data, **options))
    lacking = sum(row["clip_score"] is None and (row["blur"] or 0) >= 100 for row in strict.ledger.to_pylist())
    apply_run(strict, ["blur >= 100", "clip_score >= 0.57"], out=tmp_path / "applied", fill=True)
    assert len(decoded) == lacking > 0


def test_labels_and_dataset_wide_scores_that_were_added_can_be_rules(strict: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(strict.path, tmp_path / "run"))
    clipsieve.label(run, labels=["a red circle", "a blue square", "a star"])
    clipsieve.add_score(run, "nearest_similarity")
    applied = apply_run(run, [*STRICT, 'label in ("a red circle", "a star")', "nearest_similarity in bottom 50%"])
    reasons = " ".join(filter(None, applied.ledger["reason"].to_pylist()))
    assert "label a blue square not in (a red circle, a star)" in reasons
    assert "not in bottom 50%" in reasons
    assert applied.path == tmp_path / "run-apply"


def test_what_no_rule_needs_is_not_computed_and_what_was_computed_is_not_lost(data: Path, tmp_path: Path) -> None:
    run = clipsieve.run(
        read=str(data / "pairs.jsonl"), model="demo", keep=["width >= 400", *STRICT], out=tmp_path / "run"
    )
    applied = apply_run(run, "width >= 300", out=tmp_path / "applied")  # nothing is to be filled for it
    assert applied.counts.images.kept > run.counts.images.kept
    for name in ("blur", "clip_score"):
        assert applied.ledger[name].to_pylist() == pytest.approx(run.ledger[name].to_pylist(), nan_ok=True)


def test_a_score_added_anew_with_other_options_makes_another_selection(strict: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(strict.path, tmp_path / "run"))
    clipsieve.add_score(run, "neg_clip_loss")
    apply_run(run, [*STRICT, "neg_clip_loss in top 50%"], out=tmp_path / "best")
    clipsieve.add_score(run, "neg_clip_loss", tau=0.5)
    with pytest.raises(ClipsieveError, match="holds a run of another recipe"):
        apply_run(run, [*STRICT, "neg_clip_loss in top 50%"], out=tmp_path / "best")


def test_images_that_have_changed_since_they_were_scored_are_not_written(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    run = clipsieve.run(
        read=str(tmp_path / "data" / "pairs.jsonl"), keep=["blur >= 100", "file_bytes >= 1"], write="webdataset",
        out=tmp_path / "run",
    )  # fmt: skip
    first = next(row for row in run.ledger.to_pylist() if row["verdict"] == "kept")
    image = Path(first["reference"])
    whole = image.read_bytes()
    for changed, why in (
        (whole + b" ", "it had [0-9,]+ bytes and has"),
        (b"x" * len(whole), "not an image of a known"),
    ):
        image.write_bytes(changed)
        with pytest.raises(ClipsieveError, match=rf"was read when it was scored and cannot be now: {why}"):
            apply_run(run, "blur >= 2", out=tmp_path / "applied", fill=True)


def test_an_image_of_other_bytes_is_not_written_where_the_ledger_has_their_hash(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    source = str(tmp_path / "data" / "pairs.jsonl")
    run = clipsieve.run(read=source, keep="blur >= 100", scores={"content_hash": {}}, out=tmp_path / "run")
    image = Path(next(row["reference"] for row in run.ledger.to_pylist() if row["verdict"] == "kept"))
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    with pytest.raises(ClipsieveError, match=r"cannot be now: its bytes are others \(content_hash\)"):
        apply_run(run, "blur >= 2", write="webdataset", out=tmp_path / "applied", fill=True)


def test_what_can_be_told_of_a_broken_image_counts_as_in_a_fresh_run(data: Path, tmp_path: Path) -> None:
    """Its header gives its width, by which it takes part in a share; with on_error keep it stays itself."""
    options: dict[str, Any] = {"read": str(data / "documents.parquet"), "on_error": "keep"}
    clipsieve.run(**options, keep="words >= 1", out=tmp_path / "before")
    fresh = clipsieve.run(**options, keep="width in bottom 50%", out=tmp_path / "fresh")
    applied = apply_run(tmp_path / "before", "width in bottom 50%", out=tmp_path / "applied", fill=True)
    assert verdicts(applied) == verdicts(fresh)
    assert str(applied.ledger["width"].to_pylist()) == str(fresh.ledger["width"].to_pylist())


def test_an_image_of_which_only_the_header_was_seen_may_fail_later(data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"read": str(data / "documents.parquet"), "check": "header"}
    clipsieve.run(**options, keep="width >= 1", out=tmp_path / "before")
    fresh = clipsieve.run(**options, keep="blur >= 1", out=tmp_path / "fresh")
    applied = apply_run(tmp_path / "before", "blur >= 1", out=tmp_path / "applied", fill=True)
    assert verdicts(applied) == verdicts(fresh)


def test_a_selection_by_a_score_of_the_whole_data_set_is_shown_and_reported(strict: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(strict.path, tmp_path / "run"))
    clipsieve.add_score(run, "nearest_similarity")
    applied = apply_run(run, [*STRICT, "nearest_similarity <= 0.999"], out=tmp_path / "applied")
    applied.show()
    assert "nearest_similarity" in applied.report().read_text()


def test_an_interrupted_selection_goes_on(strict: Run, tmp_path: Path) -> None:
    rules = ["blur >= 1500", "clip_score >= 0.57"]
    apply_run(strict, rules, out=tmp_path / "out")
    whole = contents(tmp_path / "out" / "ledger"), contents(tmp_path / "out" / "output")
    for name in ("ledger/00000.parquet", "summary.json"):
        (tmp_path / "out" / name).unlink()
    apply_run(strict, rules, out=tmp_path / "out")
    assert (contents(tmp_path / "out" / "ledger"), contents(tmp_path / "out" / "output")) == whole


def test_the_run_itself_and_a_source_that_has_changed_are_refused(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    run = clipsieve.run(read=str(tmp_path / "data" / "pairs.jsonl"), keep="blur >= 100", out=tmp_path / "run")
    with pytest.raises(ClipsieveError, match="is the run itself"):
        apply_run(run, out=run.path)
    with open(tmp_path / "data" / "pairs.jsonl", "a") as file:
        file.write("\n")
    with pytest.raises(ClipsieveError, match="the source has changed"):
        apply_run(run, "blur >= 200", out=tmp_path / "applied")
