"""Connected components of a growing graph."""

from __future__ import annotations

import numpy as np

from clipsieve.dedup.result import Numbers


class Components:
    """``parent`` ``(nodes,)`` leads from each node to the lowest one that it is connected with, in some steps."""

    def __init__(self, nodes: int) -> None:
        self.parent: Numbers = np.arange(nodes)

    def connect(self, left: Numbers, right: Numbers) -> None:
        """Adds an edge from each node of ``left`` to the one beside it in ``right``.

        Each round hangs the higher root of every edge below the lower one; what it touches, it leaves with short
        paths. No edge is visited by Python, and no node that has no part in it.
        """
        while len(left):
            left, right = self._climb(left), self._climb(right)
            apart = left != right
            left, right = left[apart], right[apart]
            np.minimum.at(self.parent, np.maximum(left, right), np.minimum(left, right))

    def roots(self) -> Numbers:
        """The lowest node that each one is connected with, ``(nodes,)``."""
        return self._climb(np.arange(len(self.parent)))

    def _climb(self, nodes: Numbers) -> Numbers:
        tops = self.parent[nodes]
        while not np.array_equal(tops, higher := self.parent[tops]):
            tops = higher
        self.parent[nodes] = tops
        return tops
