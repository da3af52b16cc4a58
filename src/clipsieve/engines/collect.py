"""Keeps what becomes of shards in memory, for a table that is curated without a run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from clipsieve.core.ledger import Counts, count
from clipsieve.engines.commit import ScoredShard

if TYPE_CHECKING:
    from clipsieve.core.contracts import Vectors
    from clipsieve.plan import Plan


class Collector:
    """A ``Sink`` for pieces of one table; in the ledger they are one shard."""

    scratch = None
    needs_bytes = False

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows: list[pa.Table] = []
        self.ledgers: list[pa.Table] = []
        self.vectors: list[Vectors] = []
        self._samples = 0

    def commit(self, scored: ScoredShard) -> Counts:
        """Takes a piece; its rows follow those of the piece before."""
        verdicts, table = scored.finish()
        self.rows.append(scored.kept(verdicts).table)
        if self.plan.keeps_vectors:
            self.vectors.append(scored.image_vectors(table))
        scored.store.close()
        (piece,) = scored.shard.pieces
        for name, offset in (("shard", -scored.shard.number), ("row", piece.start), ("sample", self._samples)):
            place = table.schema.get_field_index(name)
            field = table.schema.field(place)
            moved = pa.array(table[name].to_numpy() + offset, field.type)
            table = table.set_column(place, field, moved)
        self._samples += sum(chunk.batch.samples for chunk in scored.chunks)
        self.ledgers.append(table)
        return count(table)

    def all_vectors(self) -> Vectors:
        """Those of all pieces, ``(rows of the ledger, dim)``; NaN where there is none."""
        joined: Vectors = np.concatenate(self.vectors)
        return joined
