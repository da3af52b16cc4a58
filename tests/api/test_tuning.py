"""Other rules beside those of a run, from its ledger alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import clipsieve
from clipsieve import Run, demo
from clipsieve.api.tuning import Tuning
from clipsieve.errors import ClipsieveError

OWN = ["blur >= 100", "clip_score >= 0.5"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    demo.generate(folder, documents=20, pairs=60)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return clipsieve.run(
        read=str(data / "pairs.jsonl"), model="demo", keep=OWN, out=tmp_path_factory.mktemp("runs") / "run"
    )


def test_the_funnel_before_is_that_of_the_run(run: Run) -> None:
    found = Tuning(run).compare(OWN)
    assert [step.dropped for step in found.steps] == [(run.counts.dropped_by[rule],) * 2 for rule in OWN]
    assert found.images[0] == found.images[1]
    assert (found.images[0].kept, found.samples[0].kept) == (run.counts.images.kept, run.counts.samples.kept)
    assert (found.to_kept, found.to_dropped, found.lacking) == (0, 0, {})


def test_a_stricter_rule_turns_what_a_fresh_run_would_drop(run: Run, data: Path, tmp_path: Path) -> None:
    rules = ["blur >= 100", "clip_score >= 0.58"]
    found = Tuning(run).compare(rules)
    fresh = clipsieve.run(read=str(data / "pairs.jsonl"), model="demo", keep=rules, out=tmp_path / "fresh")
    assert found.images[1].kept == fresh.counts.images.kept
    old, new = (next(step for step in found.steps if step.rule == rule) for rule in (OWN[1], rules[1]))
    assert new.dropped == (None, fresh.counts.dropped_by[rules[1]])
    assert new.to_dropped == found.to_dropped == run.counts.images.kept - fresh.counts.images.kept > 0
    assert (old.dropped[1], old.alone, old.last, old.to_kept) == (None, None, None, 0)


def test_what_a_rule_drops_alone_and_last(data: Path, tmp_path: Path) -> None:
    run = clipsieve.run(read=str(data / "pairs.jsonl"), model="demo", keep=OWN, score_all=True, out=tmp_path / "run")
    blur, clip = Tuning(run).compare(OWN).steps
    rows = [row for row in run.ledger.to_pylist() if row["error"] is None]
    fails = [(row["blur"] < 100, row["clip_score"] < 0.5) for row in rows]
    assert blur.alone == (sum(b for b, _ in fails),) * 2
    assert clip.alone == (sum(c for _, c in fails),) * 2
    assert blur.last == (sum(b and not c for b, c in fails),) * 2
    assert clip.last == (sum(c and not b for b, c in fails),) * 2


def test_after_early_exit_what_a_rule_drops_alone_and_last_is_known_within_bounds(run: Run) -> None:
    """What blur dropped has no clip_score, so whether clip_score would have dropped it is not known."""
    blur, clip = Tuning(run).compare(OWN).steps
    by_blur, by_clip = (run.counts.dropped_by[rule] for rule in OWN)
    assert (blur.alone, blur.last) == ((by_blur, by_blur), (0, by_blur))
    assert (clip.alone, clip.last) == ((by_clip, by_clip + by_blur), (by_clip, by_clip))


def test_two_rules_that_read_alike_are_told_as_one(run: Run) -> None:
    rules = [{"rule": "blur >= 100"}, {"rule": "blur >= 100", "drop": "image"}]
    (step,) = (step for step in Tuning(run).compare(rules).steps if step.dropped[1] is not None)
    assert step.dropped[1] == run.counts.dropped_by["blur >= 100"]


def test_images_without_a_score_that_looser_rules_need_are_counted_apart(run: Run) -> None:
    tuning = Tuning(run)
    found = tuning.compare(["blur >= 2", "clip_score >= 0.5"])
    left_out = sum(
        row["clip_score"] is None and row["error"] is None and row["blur"] >= 2 for row in run.ledger.to_pylist()
    )
    assert found.lacking == {"clip_score": left_out}
    assert found.images[1].unknown == left_out > 0
    total = found.images[1]
    assert total.kept + total.dropped + total.failed + total.unknown == run.counts.images.total


def test_thresholds_by_share_take_the_place_of_the_rules_on_their_scores(run: Run) -> None:
    tuning = Tuning(run)
    suggested = tuning.suggest(["40%"])
    assert [one.rule.split()[0] for one in suggested] == ["blur", "clip_score"]
    assert all(0.39 < one.passing / one.scored < 0.42 for one in suggested)
    (clip,) = tuning.suggest(["clip_score=40%"])
    assert [rule["rule"] for rule in tuning.with_suggested([clip])] == ["blur >= 100", clip.rule]
    long = [{"rule": "any(width) >= 300"}, {"rule": "clip_score >= 0.5", "missing": 1.0, "drop": "image"}]
    found = tuning.with_suggested(tuning.suggest(["50%"], long), long)
    assert found[0]["rule"].startswith("any(width) >= ") or found[1]["rule"].startswith("any(width) >= ")
    assert {"missing": 1.0, "drop": "image"}.items() <= found[-1].items()


def test_of_a_run_without_rules_thresholds_of_all_scores_are_proposed(data: Path, tmp_path: Path) -> None:
    run = clipsieve.score(str(data / "pairs.jsonl"), model="demo", out=tmp_path / "scores")
    rules = {one.rule.split()[0] for one in Tuning(run).suggest(["50%"])}
    assert {"blur", "qr_code", "clip_score"} <= rules
    assert "width" not in rules
    assert Tuning(run).suggest(["width=50%"])[0].rule.startswith("width >= ")


def test_documents_count_their_samples(data: Path, tmp_path: Path) -> None:
    run = clipsieve.run(read=str(data / "documents.parquet"), model="demo", keep=OWN, out=tmp_path / "run")
    found = Tuning(run).compare(["all(blur) >= 100"])
    fresh = clipsieve.run(read=str(data / "documents.parquet"), keep=["all(blur) >= 100"], out=tmp_path / "fresh")
    assert found.samples[1].kept == fresh.counts.samples.kept
    assert found.images[1].kept == fresh.counts.images.kept


def test_a_run_that_cannot_be_replayed_is_refused(run: Run, data: Path, tmp_path: Path) -> None:
    unfinished = Run(shutil.copytree(run.path, tmp_path / "unfinished"))
    (unfinished.path / "ledger" / "00000.parquet").unlink()
    with pytest.raises(ClipsieveError, match="is not finished"):
        Tuning(unfinished)

    class Never:
        name = "never"

        def __call__(self, batch: clipsieve.Batch) -> list[str | None]:
            return [None] * batch.table.num_rows

    filtered = clipsieve.run(read=str(data / "pairs.jsonl"), filters=[Never()], out=tmp_path / "filtered")
    with pytest.raises(ClipsieveError, match=r"filters in Python too \(never\); they cannot be replayed"):
        Tuning(filtered)
