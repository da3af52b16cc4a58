"""What a database must do to hold an index, and the columns of its rows.

A store keeps rows and finds candidates; what a user asks, checks and sees is the same over all of them: see ``Index``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from clipsieve.core.contracts import Vectors
from clipsieve.core.rules import Rule

COLUMNS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("reference", pa.string()),
        pa.field("sample_id", pa.string()),
        pa.field("image", pa.int32()),
        pa.field("sources", pa.list_(pa.string())),
        pa.field("digest", pa.string()),
        pa.field("thumbnail", pa.binary()),
    ]
)
"""The columns that every index has, before the scores and the vector.

``id`` comes from the content (encoded bytes and caption) and is the same for any run; ``reference``, ``sample_id`` and
``image`` say where the image is, as in the ledger; ``sources`` lists the data sets that hold it; ``digest`` changes
when anything in the row but its sources does; ``thumbnail`` is JPEG, null when the image could not be read.
"""


def row_schema(scores: Iterable[pa.Field], dim: int) -> pa.Schema:
    """The schema of an index with these scores and vectors of ``dim`` float32."""
    fields = [pa.field(score.name, score.type) for score in scores]
    return pa.schema([*COLUMNS, *fields, pa.field("vector", pa.list_(pa.float32(), dim), nullable=False)])


def scores_of(schema: pa.Schema) -> list[pa.Field]:
    """The fields of the scores in the schema of an index."""
    return [field for field in schema if field.name not in COLUMNS.names and field.name != "vector"]


class Store(Protocol):
    """A table of rows with vectors. Every method raises ``IndexStoreError`` when the database says no.

    ``title`` names it for people, without any password. ``exact_up_to`` is the number of rows up to which a query
    that looks at every vector answers soon enough, so that no approximate index is worth its recall.
    """

    title: str
    exact_up_to: int

    def about(self) -> str | None:
        """What ``create`` or ``describe`` was last told of the index; None when there is no table yet."""
        ...

    def schema(self) -> pa.Schema:
        """The columns of the rows, as in ``row_schema``."""
        ...

    def create(self, schema: pa.Schema, about: str) -> None:
        """Makes the table; it is there as a whole or not at all."""
        ...

    def describe(self, about: str) -> None:
        """Replaces what is told of the index."""
        ...

    def add_columns(self, fields: Sequence[pa.Field]) -> None:
        """Adds columns, null in the rows that are there."""
        ...

    def put(self, rows: pa.Table) -> None:
        """Inserts rows, each in place of the one with its id; ids are distinct. All of them are stored, or none."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Removes the rows with these ids."""
        ...

    def count(self) -> int:
        """Number of rows."""
        ...

    def find(self, column: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """``columns`` of the rows whose text ``column`` is one of ``values``, in any order."""
        ...

    def scan(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """``columns`` of all rows, at most ``rows`` at a time, in any order."""
        ...

    def nearest(self, vector: Vectors, count: int, where: Sequence[Rule], *, exact: bool) -> pa.Table:
        """``id`` and ``vector`` of the ``count`` rows nearest to ``vector`` ``(dim,)`` among those that pass ``where``.

        ``exact`` looks at every row; otherwise the approximate index answers, which ``where`` must then be empty for.
        Distances may be summed in float32: of rows whose cosines float32 cannot tell apart, any may be left out.
        """
        ...

    def approximate(self, dim: int) -> None:
        """Builds the approximate index over all rows, or builds it anew."""
        ...

    def exact(self) -> None:
        """Drops the approximate index."""
        ...

    def hold(self) -> None:
        """Makes this the one writer until ``close``, where two would not see each other's rows."""
        ...

    def close(self) -> None:
        """Lets go of the database."""
        ...
