"""The wheel carries what an installed Clipsieve needs: the demo model, the licence and the types marker."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_carries_the_demo_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("clipsieve-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    model = {name: size for name, size in sizes.items() if name.startswith("clipsieve/encoders/demo_clip/")}
    files = {name.rpartition("/")[2] for name in model}
    assert files >= {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "README.md"}
    assert sum(model.values()) < 5 * 2**20
    assert "clipsieve/py.typed" in sizes
    assert any(name.endswith("licenses/LICENSE") for name in sizes)
