"""Memory is bounded by what is in flight: ten times the rows take no more of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def megabytes(out: Path, rows: int) -> int:
    command = [sys.executable, "-m", "tests.engines.measured", str(out), str(rows)]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path) -> None:
    # 10 kB kept of each of the 2,700 further images would show.
    assert megabytes(tmp_path / "large", 3000) <= 1.15 * megabytes(tmp_path / "small", 300)
