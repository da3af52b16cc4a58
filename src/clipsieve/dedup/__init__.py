"""Near duplicates, from bytes, hashes or vectors: three tiers, cheapest first, each usable alone.

Pure functions over arrays: they read nothing and write nothing, and know no ledger. ``distributed`` alone has workers,
which read where it is told and keep in a ``PartitionStore`` what they share.
"""

from clipsieve.dedup.distributed import distributed
from clipsieve.dedup.exact import exact
from clipsieve.dedup.pairs import Pair, Pairs
from clipsieve.dedup.partitions import (
    Digests,
    InMemory,
    Located,
    PartitionStore,
    Ranges,
    VectorPartition,
    Vectors,
    digests,
)
from clipsieve.dedup.perceptual import perceptual
from clipsieve.dedup.result import Duplicates, Links, Progress
from clipsieve.dedup.semantic import semantic

__all__ = [
    "Digests", "Duplicates", "InMemory", "Links", "Located", "Pair", "Pairs", "PartitionStore", "Progress",
    "Ranges", "VectorPartition", "Vectors", "digests", "distributed", "exact", "perceptual", "semantic",
]  # fmt: skip
