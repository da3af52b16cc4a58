"""The SQL of ``docs/search.md`` is what Clipsieve makes, and runs."""

from __future__ import annotations

import re
from pathlib import Path

import chdb
import numpy as np
import pyarrow as pa

from clipsieve.index import About, Index
from clipsieve.index.store import row_schema
from tests.index.conftest import rows, unit

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
TABLE, APPROXIMATE, *QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


def definition(sql: str) -> str:
    """A table's definition as ClickHouse formats it, without the marks around names and what is told of the index."""
    return re.sub(r"COMMENT '.*'|[`\s]+", " ", sql).replace("( ", "(").replace(" )", ")").strip()


def test_the_documented_table_is_the_one_that_is_made_and_its_queries_run(tmp_path: Path) -> None:
    about = About(model="m", revision=None, fingerprint="f", dim=512)
    scores = [pa.field("clip_score", pa.float64()), pa.field("width", pa.float64())]
    vectors = unit(np.random.default_rng(0).normal(size=(20, 512)))
    with Index.create(f"chdb://{tmp_path / 'index'}", about, scores) as index:
        names = [f"pair-{i:05d}" for i in range(20)]
        columns = {"sample_id": names, "reference": names, "clip_score": [i / 20 for i in range(20)]}
        index.store.put(
            rows(vectors, row_schema(scores, 512), sources=[["a", "b"][: i % 2 + 1] for i in range(20)], **columns)
        )
        sql = chdb.connect(str(tmp_path / "index"))

        def shown() -> str:
            return definition(sql.query("SHOW CREATE TABLE clipsieve.images", "TSVRaw").bytes().decode())

        made = shown()
        assert [names[3], *index.nearest(vectors[3], k=10)["reference"].to_pylist()[1:]] == [
            line.split("\t")[0] for line in sql.query(QUERIES[0], "TSV").bytes().decode().splitlines()
        ]
        assert len(sql.query(QUERIES[1], "TSV").bytes().splitlines()) == 10
        assert len(sql.query(QUERIES[2], "TSV").bytes().splitlines()) == 10
        index.approximate()
        with_index = shown()
        sql.query("DROP TABLE clipsieve.images SYNC")
        sql.query(TABLE)
        assert shown() == made
        sql.query(APPROXIMATE)
        assert shown() == with_index
        sql.close()
    assert len(QUERIES) == 3
