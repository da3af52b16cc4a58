"""How busy the operators of a cluster were, from the stamps of shards, and what to add."""

from __future__ import annotations

from typing import Any

import pytest

from clipsieve.engines.usage import Meter, Stamp, Usage, advice


def stamp(operator: str, began: float, ended: float, process: int = 1) -> Stamp:
    return Stamp(operator=operator, began=began, ended=ended, process=("node", process))


def test_stamps_add_up() -> None:
    meter = Meter()
    meter.add([stamp("prepare", 100, 104), stamp("encode", 105, 110), stamp("write", 110, 111)], 3)
    meter.add([stamp("prepare", 100, 104), stamp("encode", 110, 120), stamp("write", 119.9, 120)], 4)
    prepare, encode, write = meter.usage({"prepare": 2, "write": 2})
    assert prepare == Usage(operator="prepare", shards=2, busy=8, waited=None, workers=2, used=0.2, images=7)
    # Of encoders there were as many as processes were seen at a time.
    assert encode == Usage(operator="encode", shards=2, busy=15, waited=3.5, workers=1, used=0.75, images=7)
    # The clock of another node is a little behind: nobody waited less than not at all.
    assert write == Usage(operator="write", shards=2, busy=1.1, waited=0, workers=2, used=0.0275, images=7)


def test_a_process_in_the_place_of_one_that_died_counts_once() -> None:
    meter = Meter()
    for process, began, ended in [(1, 0, 10), (2, 0, 10), (1, 10, 20), (3, 12, 20), (2, 10, 11), (3, 30, 40)]:
        meter.add([stamp("encode", began, ended, process)], 1)
    (encode,) = meter.usage({})
    assert (encode.workers, encode.used) == (2, round(49 / 80, 4))


@pytest.mark.parametrize(
    ("prepare", "encode", "write", "shards", "said"),
    [
        (0.5, 0.97, 0.1, 100, "the encoders are busy 97% of the time: add encoders"),
        (0.8, 0.4, 0.15, 100, "the CPUs are busy 95% of the time, the encoders wait 60% of it: add CPU nodes"),
        (0.9, None, None, 100, "the CPUs are busy 90% of the time: add CPU nodes"),
        (0.3, 0.4, 0.1, 10, "10 shards are few for 8 CPUs: smaller ones"),
        (0.3, 0.4, 0.1, 100, "neither the encoders nor the CPUs are busy all the time: they wait for storage"),
    ],
)
def test_what_to_add(prepare: float, encode: float | None, write: float | None, shards: int, said: str) -> None:
    used = {"prepare": prepare, "encode": encode, "write": write}
    found = [
        Usage(operator=name, shards=shards, busy=8 * 60 * share, waited=None, workers=8, used=share)
        for name, share in used.items()
        if share is not None
    ]
    assert advice(found).startswith(said)


def usage(**changes: Any) -> Usage:
    about = {"operator": "prepare", "shards": 100, "busy": 96.0, "waited": None, "workers": 8, "used": 0.2}
    return Usage(**{**about, **changes})


def test_a_run_too_short_to_tell_gets_no_advice() -> None:
    assert advice([usage(busy=8.0)]) == ""
    assert advice([usage(shards=1)]) == ""


def test_tiny_shards_are_to_be_larger_and_where_is_no_model_nobody_speaks_of_encoders() -> None:
    assert "larger ones (read: {shard_rows: ..., shard_bytes: ...}, in a new run folder)" in advice(
        [usage(shards=5_000)]
    )
    assert advice([usage()]).startswith("the CPUs are not busy all the time")
    assert advice([usage(shards=3, workers=1, used=0.8)]).startswith("3 shards are few for 1 CPU: smaller")
