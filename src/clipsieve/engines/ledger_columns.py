"""What a search for near duplicates has found, in the columns and words of the ledger, a shard at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clipsieve import dedup
from clipsieve.core.contracts import Vectors
from clipsieve.engines.compared import Compared

ABOUT = b"dedup"
"""Key of a ledger part's metadata under which stands, as JSON, what the search compared and found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Earlier:
    """Images of an earlier data set, which come before all of a run's own: ``names`` ``(m,)`` and what is compared.

    ``compared`` are their vectors ``(m, dim)`` or their hashes ``(m,)`` as texts.
    """

    names: pa.Array
    compared: Vectors | pa.Array
    title: str


def score_of(method: str) -> str | None:
    """The column in which a method says how close the nearest is."""
    return {"exact": None, "perceptual": "min_distance"}.get(method, "max_similarity")


@dataclass(frozen=True, kw_only=True, eq=False)
class LedgerColumns:
    """What was found, as ``Found`` takes it; names are looked up for one shard at a time."""

    compared: Compared
    found: dedup.Duplicates
    earlier: Earlier | None

    @property
    def score(self) -> str | None:
        """The column that says how close the nearest is."""
        return score_of(self.compared.by.by.method)

    @property
    def schema(self) -> pa.Schema:
        """The columns, and in the metadata what was compared and how."""
        found, earlier = self.found, self.earlier
        about = {
            "method": found.method,
            "compared": len(self.compared),
            "against": None if earlier is None else {"name": earlier.title, "images": len(earlier.names)},
            "removed": int(found.removed.sum()),
            "groups": len(np.unique(found.group[found.group >= 0])),
            "recall": found.recall,
        }
        nulls = {"null": "no other image within the threshold"} if self.score == "min_distance" else {}
        score = [pa.field(self.score, pa.float64(), metadata={"unit": "image", **nulls})] if self.score else []
        fields = [
            pa.field("removed", pa.bool_()),
            pa.field("reason", pa.string()),
            *score,
            pa.field("nearest", pa.string()),
            pa.field("duplicate_group", pa.int64()),
            pa.field("duplicate_of", pa.string()),
        ]
        return pa.schema(fields, metadata={ABOUT: json.dumps(about).encode()})

    def shards(self) -> Iterator[pa.Table]:
        """The rows of each shard."""
        ends = np.cumsum([len(rows) for rows in self.compared.rows]).tolist()
        schema = self.schema
        for start, end in zip([0, *ends], ends, strict=False):
            yield self._shard(slice(start, end), schema)

    def _shard(self, part: slice, schema: pa.Schema) -> pa.Table:
        found, names = self.found, self.compared.names
        group = found.group[part]
        nearest, duplicate_of = names.take(found.nearest[part]), names.take(found.duplicate_of[part])
        columns = {
            "removed": pa.array(found.removed[part]),
            "reason": pa.array(self._reasons(part, nearest, duplicate_of), pa.string()),
            "nearest": nearest,
            "duplicate_group": pa.array(self.compared.numbers[group], mask=group < 0),
            "duplicate_of": duplicate_of,
        }
        if found.max_similarity is not None:
            columns["max_similarity"] = pa.array(found.max_similarity[part])
        elif found.distance is not None:
            bits = found.distance[part]
            columns["min_distance"] = pa.array(bits.astype(np.float64), mask=bits < 0)
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _reasons(self, part: slice, nearest: pa.Array, duplicate_of: pa.Array) -> list[str | None]:
        """Why each image that goes does, in words."""
        found = self.found
        reasons: list[str | None] = [None] * len(nearest)
        for place in np.flatnonzero(found.removed[part]).tolist():
            image = part.start + place
            stays = int(found.duplicate_of[image]) >= 0
            other = int((found.duplicate_of if stays else found.nearest)[image])
            told = _closeness(found, image)
            told = told if other == found.nearest[image] else f"nearest: {nearest[place]}, {told}"
            where = "" if other < len(self.compared) else " of the earlier data"
            after = "" if stays else ", which goes too"
            reasons[place] = f"near duplicate of {(duplicate_of if stays else nearest)[place]}{where} ({told}){after}"
        return reasons


def _closeness(found: dedup.Duplicates, image: int) -> str:
    """How close an image and its nearest are, in words."""
    if found.max_similarity is not None:
        return f"cosine {found.max_similarity[image]:.5g}"
    return "equal bytes" if found.distance is None else f"{found.distance[image]} bits differ"
