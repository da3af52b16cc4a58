"""Rules replayed over a ledger in arrays decide what the engine decides, and say so where the ledger cannot tell."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clipsieve.core.layout import INTERLEAVED_SCHEMA, Layout
from clipsieve.core.replay import BESIDE, FAILED, KEPT, UNKNOWN, KeptRatio, Replay
from clipsieve.plan import Plan, make_plan
from clipsieve.recipe import Recipe
from tests.engines.conftest import Curate
from tests.fakes import image_bytes

CAPTIONS = Layout(kind="captions", image="image", texts=("caption",), sample_id="id")
LISTS = Layout(kind="lists", image="images", texts=("text",))
DOCUMENTS = Layout(kind="interleaved")
TIDY_DOCUMENTS = Layout(kind="interleaved", invalid_rows="drop")

IMAGES = [
    image_bytes("red"), image_bytes("blue"), image_bytes("green", (40, 48)), image_bytes("red", sharp=False),
    image_bytes("red")[:60],
]  # fmt: skip
TEXTS = ["red", "a blue thing", "green", "", "a long text of very many words that says nothing of colours at all"]
RULES: list[Any] = [
    "blur >= 100", "width >= 60", "clip_score >= 0.5", "any(blur) >= 100", "all(width) >= 60", "any(clip_score) >= 0.7",
    "0.1 <= image_text_ratio <= 1", "words >= 2", "any(pair_similarity) >= 0.8", "all(pair_similarity) <= 0.99",
    "clip_score in top 50%", "words in bottom 60%", {"rule": "blur >= 100", "drop": "sample"},
    {"rule": "clip_score >= 0.5", "missing": 1}, {"rule": "blur in top 70%", "missing": 0},
]  # fmt: skip


def replay(
    ledger: pa.Table, plan: Plan, words: np.ndarray | None = None
) -> tuple[list[str], list[str], dict[str, int]]:
    """What becomes of each row and of each sample by the ledger alone, in words, and what it lacks."""
    replayed = Replay(ledger)
    ratio = None
    if plan.kept_ratio:
        words = replayed.column("words").values[replayed.starts].clip(1)
        ratio = KeptRatio(at=plan.kept_ratio_at, words=words)
    decided = replayed.decide((*plan.rules, *plan.ranks), ratio)
    names = {KEPT: "kept", FAILED: "failed", BESIDE: "beside", UNKNOWN: "unknown"}
    names |= {number: bound.rule.text for number, bound in enumerate(decided.rules)}
    rows = [names[code] for code in decided.out_by.tolist()]
    return rows, [names[code] for code in decided.samples_out_by.tolist()], dict(decided.lacking)


def told(ledger: pa.Table) -> tuple[list[str], list[str]]:
    """The same as the engine decided it; a sample's is kept, dropped or failed."""
    rows, samples, seen = [], [], set()
    for row in ledger.to_pylist():
        known = row["rule"] in (None, "invalid_rows: drop")
        rows.append("beside" if row["verdict"] == "dropped" and known else row["rule"] or row["verdict"])
        if (key := (row["shard"], row["sample"])) not in seen:
            seen.add(key)
            samples.append(row["sample_verdict"])
    return rows, samples


def some_rows(layout: Layout, dice: random.Random) -> pa.Table:
    """Twelve random samples, broken images and empty texts among them."""
    if layout.kind == "captions":
        rows = [(str(n), dice.choice(IMAGES), dice.choice(TEXTS)) for n in range(12)]
        return pa.table(dict(zip(("id", "image", "caption"), map(list, zip(*rows, strict=True)), strict=True)))
    if layout.kind == "lists":
        return pa.table(
            {
                "images": [dice.choices(IMAGES, k=dice.randrange(4)) for _ in range(12)],
                "text": dice.choices(TEXTS, k=12),
            },
            schema=pa.schema({"images": pa.list_(pa.binary()), "text": pa.string()}),
        )
    rows = []
    for number in range(12):
        for position in range(dice.randrange(1, 5)):
            part = dice.choice([*IMAGES, *TEXTS[:3], None])
            rows.append(
                {
                    "sample_id": f"d{number}",
                    "position": position if dice.random() < 0.9 else -5,
                    "modality": "text" if isinstance(part, str) else "image" if part else "metadata",
                    "text_content": part if isinstance(part, str) else None,
                    "binary_content": part if isinstance(part, bytes) else None,
                }
            )
    return pa.Table.from_pylist(rows, schema=INTERLEAVED_SCHEMA)


def chance(seed: int) -> tuple[Layout, pa.Table, list[list[Any]], dict[str, Any]]:
    """A source, two lists of rules and options, by the dice."""
    dice = random.Random(seed)
    layout = dice.choice([CAPTIONS, LISTS, DOCUMENTS, TIDY_DOCUMENTS])
    options = {
        "on_error": dice.choice(["drop", "drop-sample", "keep"]),
        "scores": {"image_text_ratio": {"count": dice.choice(["source", "kept"])}, "words": {}},
    }
    options["rows_a_shard"] = 99 if layout.kind == "interleaved" else 5
    return layout, some_rows(layout, dice), [dice.sample(RULES, dice.randrange(1, 6)) for _ in range(2)], options


def planned(rules: list[Any], layout: Layout, options: dict[str, Any]) -> Plan:
    return make_plan(Recipe.build({"read": "memory", "keep": rules, "scores": options["scores"]}), layout.kind)


@pytest.mark.parametrize("seed", range(60))
def test_the_rules_of_a_run_replayed_give_its_verdicts(curate: Curate, seed: int) -> None:
    layout, table, (rules, _), options = chance(seed)
    ledger = curate(table, layout, *rules, **options)
    rows, samples, lacking = replay(ledger, planned(rules, layout, options))
    expected_rows, expected_samples = told(ledger)
    assert rows == expected_rows
    assert [s if s in ("kept", "failed") else "dropped" for s in samples] == expected_samples
    assert lacking == {}


@pytest.mark.parametrize("seed", range(60))
def test_other_rules_give_the_verdicts_of_a_fresh_run_except_where_early_exit_left_scores_out(
    curate: Curate, seed: int
) -> None:
    layout, table, (rules, others), options = chance(seed)
    others = [rule for rule in others if " in " not in str(rule)]  # a share depends on those that are not known
    rows, _, lacking = replay(curate(table, layout, *rules, **options), planned(others, layout, options))
    expected, _ = told(curate(table, layout, *others, **options))
    known = [n for n, row in enumerate(rows) if row != "unknown"]
    assert [rows[n] for n in known] == [expected[n] for n in known]
    assert (lacking == {}) == (len(known) == len(rows))

    everything = curate(table, layout, *rules, **options | {"score_all": True, "scores": every_score(layout, options)})
    rows, _, lacking = replay(everything, planned(others, layout, options))
    assert rows == expected
    assert lacking == {}


def every_score(layout: Layout, options: dict[str, Any]) -> dict[str, Any]:
    return {"blur": {}, "width": {}, "clip_score": {}, "pair_similarity": {}, **options["scores"]}
