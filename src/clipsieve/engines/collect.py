"""Keeps what becomes of shards in memory, for a table that is curated without a run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve.core.ledger import Counts, count
from clipsieve.engines.commit import ScoredShard

if TYPE_CHECKING:
    from clipsieve.core.contracts import Vectors
    from clipsieve.plan import Plan


class Collector:
    """A ``Sink`` for pieces of one table; in the ledger they are one shard."""

    folder = None
    scratch = None
    needs_bytes = False

    def __init__(self, plan: Plan, order: npt.NDArray[np.int64]) -> None:
        """``order`` gives each row of the pieces, one after the other, its number in the table."""
        self.plan = plan
        self.order = order
        self.reasons: list[str | None] = [None] * len(order)
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
        mine = self.order[piece.start : piece.stop]
        for chunk, decided in zip(scored.chunks, verdicts, strict=True):
            for row, reason in zip(mine[chunk.first_row :].tolist(), chunk.reasons(decided), strict=False):
                self.reasons[row] = reason
        columns = {
            "shard": np.zeros(table.num_rows, dtype=np.int64),
            "row": mine[table["row"].to_numpy()],
            "sample": table["sample"].to_numpy() + self._samples,
        }
        for name, values in columns.items():
            place = table.schema.get_field_index(name)
            field = table.schema.field(place)
            table = table.set_column(place, field, pa.array(values, field.type))
        self._samples += sum(chunk.batch.samples for chunk in scored.chunks)
        self.ledgers.append(table)
        return count(table)

    def all_vectors(self) -> Vectors:
        """Those of all pieces, ``(rows of the ledger, dim)``; NaN where there is none."""
        joined: Vectors = np.concatenate(self.vectors)
        return joined
