"""An index whose making was interrupted before its table was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsieve.errors import IndexStoreError
from clipsieve.index import Index
from clipsieve.index.places import open_store
from tests.index.conftest import ABOUT, SCORES


@pytest.mark.parametrize("place", ["lance", "chdb"])
def test_a_place_where_making_was_interrupted_is_taken_again(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    if place == "lance":
        (folder / "images.lance" / "data").mkdir(parents=True)
    else:
        open_store(f"chdb://{folder}", create=True).close()
        assert any(folder.iterdir())
    name = f"chdb://{folder}" if place == "chdb" else folder
    with pytest.raises(IndexStoreError, match="no index at"):
        Index.open(name)
    with Index.create(name, ABOUT, SCORES) as index:
        assert len(index) == 0
