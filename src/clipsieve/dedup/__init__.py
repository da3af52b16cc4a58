"""Near duplicates, from bytes, hashes or vectors: three tiers, cheapest first, each usable alone.

Pure functions over arrays: they read nothing and write nothing, and know no ledger.
"""

from clipsieve.dedup.exact import exact
from clipsieve.dedup.pairs import Pair, Pairs
from clipsieve.dedup.perceptual import perceptual
from clipsieve.dedup.result import Duplicates, Links, Progress
from clipsieve.dedup.semantic import semantic

__all__ = ["Duplicates", "Links", "Pair", "Pairs", "Progress", "exact", "perceptual", "semantic"]
