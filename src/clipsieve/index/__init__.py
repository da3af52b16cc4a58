"""Vectors in a store that can be searched: LanceDB in a folder, ClickHouse on a server or in this process."""

from clipsieve.index.about import About, Approximate
from clipsieve.index.index import Index
from clipsieve.index.ranking import vectors_of

__all__ = ["About", "Approximate", "Index", "vectors_of"]
