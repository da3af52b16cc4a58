"""Connected components of a growing graph."""

from __future__ import annotations

import numpy as np

from clipsieve.dedup.result import Numbers


class Components:
    """``root`` ``(nodes,)`` is the lowest node that each one is connected with."""

    def __init__(self, nodes: int) -> None:
        self.root: Numbers = np.arange(nodes)

    def connect(self, left: Numbers, right: Numbers) -> None:
        """Adds an edge from each node of ``left`` to the one beside it in ``right``.

        Each round hangs the higher root of every edge on the lower one, then shortens all paths: the number of rounds
        is logarithmic in all but contrived graphs, and no edge is visited by Python.
        """
        root = self.root
        while True:
            left, right = root[left], root[right]
            apart = left != right
            if not apart.any():
                return
            left, right = left[apart], right[apart]
            np.minimum.at(root, np.maximum(left, right), np.minimum(left, right))
            while not np.array_equal(root, shorter := root[root]):
                root[:] = shorter
