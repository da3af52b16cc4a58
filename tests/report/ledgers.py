"""Small ledgers, as the engine would have written them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from clipsieve.core.ledger import BASE_SCHEMA


def ledger(rules: list[str | None], units: dict[str, str] | None = None, **columns: Any) -> pa.Table:
    """A row for each of ``rules``, the rule that dropped the image: None for a kept one, ``failed`` for a failed one.

    Each is a sample of its own unless ``sample`` says otherwise; ``columns`` beyond the base are scores of images, or
    of what ``units`` says.
    """
    count = len(rules)
    verdicts = ["kept" if rule is None else "failed" if rule == "failed" else "dropped" for rule in rules]
    base: dict[str, Any] = {
        "shard": [0] * count,
        "row": list(range(count)),
        "image": [0] * count,
        "sample": list(range(count)),
        "sample_id": [None] * count,
        "reference": [f"{row}.png" for row in range(count)],
        "verdict": verdicts,
        "rule": [None if rule == "failed" else rule for rule in rules],
        "reason": [None if rule in (None, "failed") else f"not {rule}" for rule in rules],
        "error": ["broken: why" if rule == "failed" else None for rule in rules],
        "sample_verdict": verdicts,
        "has_text": [True] * count,
    }
    scores = {name: values for name, values in columns.items() if name not in base}
    base |= {name: values for name, values in columns.items() if name in base}
    table = pa.table(base, schema=BASE_SCHEMA)
    for name, values in scores.items():
        column = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
        unit = (units or {}).get(name, "image")
        table = table.append_column(pa.field(name, column.type, metadata={"unit": unit}), column)
    return table
