"""What a path or URL leads to, and that a password in it goes to the server and nowhere else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from clipsieve.errors import IndexStoreError, UsageError
from clipsieve.index import Index
from clipsieve.index.places import open_store
from tests.index.conftest import ABOUT, SCORES
from tests.index.served import PASSWORD, Served


def test_a_server_is_named_without_its_password(served: Served) -> None:
    store = open_store(f"clickhouse://tester:{quote(PASSWORD, safe='')}@{served.place}/db.images")
    assert store.title == f"clickhouse://tester@{served.place}/db.images"
    assert store.about() is None
    store.close()


def test_a_refused_password_is_not_repeated(served: Served) -> None:
    with pytest.raises(IndexStoreError, match=rf"^ClickHouse at {re.escape(served.place)}: Code: 516") as refused:
        open_store(f"clickhouse://tester:wr0ng@{served.place}/db.images")
    assert "wr0ng" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    ["clickhouse://", "clickhouse://u:s3cret@/db.t", "clickhouse://u:s3cret@h", "clickhouse://u:s3cret@h:x/db.t",
     "clickhouse://u:s3cret@h/a.b.c", "clickhouse://u:s3cret@h/a.b?x=1", "clickhouse://u:s3cret@h/a`.b",
     "clickhouse://u:s3cret@h/a.b%20c", "clickhouse:/u:s3cret@h/a.b", "clickhouse://u:[s3cret@h/a.b", "chdb://", "s3cret://x"],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_store(url)
    assert "s3cret@" not in str(refused.value)


def test_one_chdb_folder_at_a_time(clickhouse_folder: Path, served: Served, tmp_path: Path) -> None:
    with pytest.raises(IndexStoreError, match="this process has another one open; close that index first"):
        open_store(f"chdb://{tmp_path / 'other'}", create=True)
    code = f"from clipsieve.index.places import open_store; open_store({f'chdb://{clickhouse_folder}'!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process has it open" in done.stderr


def test_an_open_index_sees_what_others_put_there(tmp_path: Path) -> None:
    from tests.index.test_stores import MANY, row_schema, rows

    with Index.create(tmp_path / "index", ABOUT, SCORES) as one, Index.open(tmp_path / "index") as other:
        assert len(other) == 0
        one.store.put(rows(MANY[:3], row_schema(SCORES, ABOUT.dim)))
        assert len(other) == 3
