"""Near duplicates among the survivors of a run: what is compared, in which order, and what the ledger says of it.

The comparison itself is ``clipsieve.dedup``. Its outcome is put beside the staged survivors before anything is
written, so that a second pass that is interrupted goes on with the same one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve import dedup
from clipsieve.core.contracts import Vectors
from clipsieve.core.decide import Verdicts
from clipsieve.core.ledger import image_names
from clipsieve.engines.survivors import Survivors
from clipsieve.runfolder import RunFolder, undamaged, write_table

if TYPE_CHECKING:
    from clipsieve.plan import BoundDedup

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What was found for the images of a shard that were compared.

    ``images`` ``(k,)`` numbers them among the shard's survivors; ``table`` has a row for each: ``removed``, ``reason``
    and the columns of the ledger.
    """

    by: BoundDedup
    images: npt.NDArray[np.int64]
    table: pa.Table

    def apply(self, verdicts: Verdicts) -> None:
        """Drops the images that go, or their samples."""
        removed = self.table["removed"].to_numpy()
        reasons = self.table["reason"].filter(self.table["removed"]).to_pylist()
        verdicts.drop_images(self.images[removed], self.by.by.text, reasons, whole_sample=self.by.unit == "sample")

    def with_columns(self, scores: pa.Table, image_rows: npt.NDArray[np.int64]) -> pa.Table:
        """The part with the columns of near duplicates, null for what was not compared, and how it was done."""
        places = np.full(scores.num_rows, -1)
        places[image_rows[self.images]] = np.arange(len(self.images))
        taken = pa.array(places, mask=places < 0)
        for name in self.table.column_names:
            if name not in ("removed", "reason"):
                column = self.table.schema.field(name)
                scores = scores.append_column(column, self.table[name].take(taken))
        return scores.replace_schema_metadata({**(scores.schema.metadata or {}), **self.table.schema.metadata})


def find(
    by: BoundDedup,
    folder: RunFolder,
    survivors: Mapping[int, Survivors],
    earlier: Earlier | None,
    progress: Callable[[int, int], None],
) -> Mapping[int, Found]:
    """What is found for each shard, by its number; an interrupted second pass goes on with what it had found."""
    images = {
        number: np.flatnonzero((state := of.verdicts()).images & ~state.exempt) for number, of in survivors.items()
    }
    path = folder.path / "staged" / "duplicates.parquet"
    if not path.exists():
        compared = _Compared.gather(by, survivors, images)
        outcome = compared.search(folder, earlier, progress)
        write_table(path, compared.told(outcome, earlier))
    with undamaged(path):
        found = pq.read_table(path)
    ends = np.cumsum([len(of) for of in images.values()]).tolist()
    return {
        number: Found(by=by, images=of, table=found.slice(end - len(of), len(of)))
        for (number, of), end in zip(images.items(), ends, strict=True)
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Compared:
    """The images that reach the comparison, in input order: ``names``, ``units`` and ``numbers``, each ``(n,)``.

    ``numbers`` count the rows of the whole ledger; ``places`` gives each shard's rows in its vectors. ``table`` holds
    the columns that are compared or give the order.
    """

    by: BoundDedup
    table: pa.Table
    names: pa.Array
    units: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    places: Mapping[int, npt.NDArray[np.int64]]

    @classmethod
    def gather(
        cls, by: BoundDedup, survivors: Mapping[int, Survivors], images: Mapping[int, npt.NDArray[np.int64]]
    ) -> _Compared:
        """From all shards."""
        tables, units, numbers, places = [], [], [], {}
        first_row = first_sample = 0
        for number, of in survivors.items():
            rows = of.image_rows[images[number]]
            places[number] = rows
            tables.append(of.table.take(pa.array(rows)).append_column("shard", pa.array(np.full(len(rows), number))))
            units.append(of.image_samples[images[number]] + first_sample)
            numbers.append(rows + first_row)
            first_row += of.table.num_rows
            first_sample += len(of.sample_rows)
        table = pa.concat_tables(tables)
        every = np.concatenate(units)
        return cls(
            by=by,
            table=table,
            names=image_names(table),
            units=every if by.unit == "sample" else np.arange(len(every)),
            numbers=np.concatenate(numbers),
            places=places,
        )

    def search(
        self, folder: RunFolder, earlier: Earlier | None, progress: Callable[[int, int], None]
    ) -> dedup.Duplicates:
        """Compares by the method of the recipe."""
        by = self.by.by
        shared: dict[str, Any] = {"order": self._order(), "units": self.units, "links": by.links}
        shared["against"] = None if earlier is None else earlier.compared
        if by.method == "exact":
            return dedup.exact(self.table["content_hash"], **shared)
        if by.method == "perceptual":
            return dedup.perceptual(self.table["perceptual_hash"], int(by.at), **shared)
        method = "exact" if by.method == "semantic" else by.method
        return dedup.semantic(self._vectors(folder), by.at, method=method, progress=progress, **shared)

    def _order(self) -> npt.NDArray[np.int64]:
        """The order of preference: images of a sample together, the sample by the best of them, ties by input."""
        keys = np.full(len(self.units), -np.inf)
        if self.by.preference:
            values = [np.asarray(self.table[name].to_numpy(), dtype=np.float64) for name in self.by.preference]
            keys = np.nan_to_num(np.prod(values, axis=0), nan=-np.inf)
        best = np.full(int(self.units.max(initial=-1)) + 1, -np.inf)
        np.maximum.at(best, self.units, keys)
        return np.lexsort((self.units, -best[self.units]))

    def _vectors(self, folder: RunFolder) -> Vectors:
        """The vectors of the images, gathered into one file and memory-mapped."""
        path = folder.path / "staged" / "vectors.npy"
        parts = (
            (np.load(folder.vectors(shard, "image"), mmap_mode="r", allow_pickle=False), rows)
            for shard, rows in self.places.items()
        )
        return gathered(path, parts, len(self.units))

    def told(self, found: dedup.Duplicates, earlier: Earlier | None) -> pa.Table:
        """What was found, as ``Found`` takes it."""
        names = self.names if earlier is None else pa.concat_arrays([self.names, earlier.names])
        columns = {
            "removed": pa.array(found.removed),
            "reason": pa.array(self._reasons(found, names), pa.string()),
        }
        score, about_nulls = None, {}
        if found.max_similarity is not None:
            score = "max_similarity"
            columns[score] = pa.array(found.max_similarity)
        elif found.distance is not None:
            score = "min_distance"
            columns[score] = pa.array(found.distance.astype(np.float64), mask=found.distance < 0)
            about_nulls = {"null": "no other image within the threshold"}
        columns["nearest"] = names.take(_known(found.nearest))
        columns["duplicate_group"] = pa.array(np.append(self.numbers, -1)[found.group], mask=found.group < 0)
        columns["duplicate_of"] = names.take(_known(found.duplicate_of))
        about = {
            "method": found.method,
            "compared": len(self.names),
            "against": None if earlier is None else {"name": earlier.title, "images": len(earlier.names)},
            "removed": int(found.removed.sum()),
            "groups": len(np.unique(found.group[found.group >= 0])),
            "recall": found.recall,
        }
        fields = [
            pa.field(name, column.type, metadata={"unit": "image", **about_nulls} if name == score else None)
            for name, column in columns.items()
        ]
        schema = pa.schema(fields, metadata={ABOUT: json.dumps(about).encode()})
        return pa.Table.from_arrays(list(columns.values()), schema=schema)

    def _reasons(self, found: dedup.Duplicates, names: pa.Array) -> list[str | None]:
        """Why each image that goes does, in words."""
        reasons: list[str | None] = [None] * len(self.names)
        for image in np.flatnonzero(found.removed).tolist():
            stays = int(found.duplicate_of[image]) >= 0
            other = int((found.duplicate_of if stays else found.nearest)[image])
            nearest = int(found.nearest[image])
            told = _closeness(found, image)
            told = told if other == nearest else f"nearest: {names[nearest]}, {told}"
            where = "" if other < len(self.names) else " of the earlier data"
            after = "" if stays else ", which goes too"
            reasons[image] = f"near duplicate of {names[other]}{where} ({told}){after}"
        return reasons


def _closeness(found: dedup.Duplicates, image: int) -> str:
    """How close an image and its nearest are, in words."""
    if found.max_similarity is not None:
        return f"cosine {found.max_similarity[image]:.5g}"
    return "equal bytes" if found.distance is None else f"{found.distance[image]} bits differ"


def _known(places: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(places, mask=places < 0)


def gathered(path: Path, parts: Iterable[tuple[Vectors, npt.NDArray[np.int64]]], count: int) -> Vectors:
    """The chosen rows of several vectors in one new file at ``path``, memory-mapped; ``count`` rows in all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every: Vectors | None = None
    start = 0
    for vectors, rows in parts:
        if every is None:
            every = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, vectors.shape[1]))
        every[start : start + len(rows)] = vectors[rows]
        start += len(rows)
    return np.zeros((0, 0), dtype=np.float32) if every is None else every
