"""Ray ends a process without a word: somebody else says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clipsieve.engines.ray.last_words import WORDS


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("os._exit(1)", WORDS),
        ("os.kill(os.getpid(), signal.SIGTERM)", WORDS),
        ("sys.exit(0)", ""),
        ("raise KeyboardInterrupt", ""),
    ],
)
def test_only_an_end_from_outside_is_told(ends: str, said: str) -> None:
    block = f"try:\n with last_words():\n  {ends}\nexcept KeyboardInterrupt: pass"
    code = f"import os, signal, sys\nfrom clipsieve.engines.ray.last_words import last_words\n{block}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == said
