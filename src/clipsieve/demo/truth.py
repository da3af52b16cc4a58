"""Compares the verdicts of a ledger with the truth that the demo data was generated from, fault by fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import pyarrow as pa

DataSet = Literal["documents", "pairs"]
Verdict = Literal["kept", "dropped", "failed"]


class ImageKey(TypedDict):
    """An image by its sample and its number within it, counted from 0."""

    sample_id: str
    image: int


class TruthRow(TypedDict):
    """What is true of one input image, or of one sample without images: a line of `truth.jsonl`."""

    data_set: DataSet
    sample_id: str
    image: int | None  # Its number among the images of its sample, counted from 0; null for a sample without images.
    fault: str | None
    detail: str | None  # How the fault was made: `truncated`, `area 0.214`.
    verdict: Verdict
    rule: str | None  # The score that the reason of a drop must name.
    duplicate_of: ImageKey | None
    shows: str | None  # The caption that is true of the image, whatever the data set says of it.
    colours: list[str]
    shapes: list[str]
    single_object: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How many of the planted images of one kind got the verdict they must get, for the right reason."""

    fault: str | None  # None: the clean images.
    verdict: Verdict
    planted: int
    right: int

    @property
    def share(self) -> float:
        """The right ones among the planted, from 0 to 1; 1 where none was planted."""
        return self.right / self.planted if self.planted else 1.0


def read_truth(path: Path) -> list[TruthRow]:
    """Reads a `truth.jsonl`."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def compare(ledger: pa.Table, truth: Iterable[TruthRow], *, data_set: DataSet) -> tuple[Outcome, ...]:
    """Counts, for the clean images and for each fault, how many verdicts of a ledger are right.

    Args:
        ledger: Has the columns `sample_id` (string), `image` (integer, null for a sample without images), `verdict`,
            `reason` and `error` (strings), one row per input image.
        truth: The rows of both data sets, or of the one compared.
        data_set: The data set that the ledger is of.

    Returns:
        The clean images first, then the faults in the order of their first appearance. A drop is right where its
        reason names the rule, a failure where it has an error. An image that the ledger lacks is not right.

    Raises:
        ValueError: The ledger has an image twice, or one that the truth does not know.
    """
    expected = {(row["sample_id"], row["image"]): row for row in truth if row["data_set"] == data_set}
    right: dict[tuple[str, int | None], bool] = {}
    for found in ledger.select(["sample_id", "image", "verdict", "reason", "error"]).to_pylist():
        key = (found["sample_id"], found["image"])
        if key not in expected or key in right:
            problem = "appears twice in the ledger" if key in right else f"is not in the truth of the {data_set}"
            raise ValueError(f"image {key[1]} of sample {key[0]!r} {problem}")
        right[key] = _is_right(expected[key], found["verdict"], found["reason"] or "", found["error"] or "")

    counts: dict[tuple[str | None, Verdict], list[bool]] = {(None, "kept"): []}
    for key, row in expected.items():
        counts.setdefault((row["fault"], row["verdict"]), []).append(right.get(key, False))
    return tuple(
        Outcome(fault=fault, verdict=verdict, planted=len(results), right=sum(results))
        for (fault, verdict), results in counts.items()
    )


def _is_right(expected: TruthRow, verdict: str, reason: str, error: str) -> bool:
    if verdict != expected["verdict"]:
        return False
    if verdict == "dropped":
        return re.search(rf"\b{expected['rule']}\b", reason) is not None
    return verdict == "kept" or error != ""
