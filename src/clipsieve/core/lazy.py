"""Bytes of images that are read one at a time, when they are asked for, so that never all of them are in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload


class LazyBytes(Sequence[bytes | None]):
    """A sequence of encoded images (None for one without bytes), each read by ``read`` whenever it is asked for."""

    @abstractmethod
    def read(self, index: int) -> bytes | None:
        """The bytes of one image; ``index`` is from 0."""

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes | None] | None:
        places = range(len(self))[index]
        return Chosen(self, places) if isinstance(places, range) else self.read(places)


@dataclass(frozen=True)
class Chosen(LazyBytes):
    """Some of the items of another sequence."""

    items: Sequence[bytes | None]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> bytes | None:
        """The item at the chosen place."""
        return self.items[self.places[index]]
