"""Random-weight checkpoints, made once a session by the same tool that benchmarks use."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

_spec = importlib.util.spec_from_file_location("make_random_clip", ROOT / "tools" / "make_random_clip.py")
make_random_clip = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_random_clip)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Torch threads that wait for each other are slow beside other test processes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """ViT-B/32 with 2 layers a tower instead of 12."""
    return make_random_clip.make_clip(tmp_path_factory.mktemp("clip"), layers=2)


@pytest.fixture(scope="session")
def full_clip_folder(tmp_path_factory):
    """ViT-B/32 as it is, 600 MB."""
    return make_random_clip.make_clip(tmp_path_factory.mktemp("full_clip"))


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory):
    return make_random_clip.make_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="session")
def folders(clip_folder, siglip_folder):
    return {"clip": clip_folder, "siglip": siglip_folder}


@pytest.fixture
def copied(siglip_folder, tmp_path):
    """A copy of the small SigLIP's folder to damage."""
    return shutil.copytree(siglip_folder, tmp_path / "copied")
