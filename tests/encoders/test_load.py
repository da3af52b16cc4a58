"""Loading: what makes a model usable, and one clear line for every way in which it is not."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel

from clipsieve.encoders import devices, load
from clipsieve.errors import ModelError


def refusal(*args, **options):
    with pytest.raises(ModelError) as refused:
        load(*args, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def change(folder, name, **changes):
    stored = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**stored, **changes}))


def test_clip(clip_folder):
    encoder = load(str(clip_folder))
    assert encoder.dim == 512
    assert encoder.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-6)
    assert encoder.logit_bias == 0
    assert encoder._model.config._attn_implementation == "sdpa"
    assert not encoder._model.training


def test_siglip(siglip_folder):
    encoder = load(str(siglip_folder))
    assert (encoder.dim, encoder.logit_bias) == (64, pytest.approx(-12.9))


def test_a_truncated_text_keeps_its_end_mark(clip_folder):
    encoder = load(str(clip_folder))
    same, other = "house " * 75, "house " * 74 + "dog"
    vectors = encoder.texts([same, same + "dog", other])
    assert np.allclose(vectors[0], vectors[1], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-3)


def test_precision(clip_folder):
    full, half = load(str(clip_folder)), load(str(clip_folder), precision="bf16")
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    vector = half.images(image)
    assert vector.dtype == np.float32
    assert 0.99 < (vector @ full.images(image).T).item() < 1
    assert half.logit_scale == full.logit_scale
    assert half.fingerprint != full.fingerprint


def test_fingerprint_is_of_the_contents_not_of_the_name(siglip_folder, copied):
    fingerprint = load(str(siglip_folder)).fingerprint
    assert load(str(copied)).fingerprint == fingerprint
    change(copied, "preprocessor_config.json", resample=2)
    assert load(str(copied)).fingerprint != fingerprint


def test_loading_says_nothing(clip_folder, capfd):
    load(str(clip_folder))
    assert capfd.readouterr() == ("", "")


def test_torch_is_imported_when_a_model_is_loaded():
    code = "import sys, clipsieve.encoders; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_devices():
    assert devices()[-1] == "cpu"


@pytest.mark.parametrize("model_type", ["altclip", "chinese_clip", "metaclip_2"])
def test_other_dual_encoders(model_type, siglip_folder, tmp_path):
    """By the same path, with whatever tokenizer they bring."""
    if model_type not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
        pytest.skip(f"this transformers has no {model_type}")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 2000, "max_position_embeddings": 80, "project_dim": 32, "projection_dim": 32}
    config = transformers.AutoConfig.for_model(
        model_type,
        text_config={**text, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1},
        vision_config={**tower, "image_size": 224, "patch_size": 32},
        projection_dim=32,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((siglip_folder / name).read_bytes())
    encoder = load(str(tmp_path))
    assert encoder.dim == 32
    assert np.isfinite(encoder.texts(["a dog", "a red house on the street"])).all()


def test_no_config(tmp_path):
    assert "no config.json" in refusal(str(tmp_path))


def test_only_pickled_weights(copied):
    weights = copied / "model.safetensors"
    torch.save(load_file(weights), copied / "pytorch_model.bin")
    weights.unlink()
    said = refusal(str(copied))
    assert "pickled" in said
    assert "save_pretrained" in said


def test_a_shard_that_is_not_there(copied):
    (copied / "model.safetensors").unlink()
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00001.safetensors"}}))
    assert "lacks model-00001.safetensors" in refusal(str(copied))
    (copied / "model.safetensors.index.json").write_text("{")
    assert "is damaged" in refusal(str(copied))


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json"])
def test_a_file_that_is_not_there(name, copied):
    (copied / name).unlink()
    assert name in refusal(str(copied))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_truncated_file(name, copied):
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[: len(whole) // 2])
    assert str(copied) in refusal(str(copied))


def test_a_tokenizer_that_needs_more_packages(copied):
    if transformers.utils.is_sentencepiece_available():
        pytest.skip("sentencepiece is installed")
    (copied / "tokenizer.json").rename(copied / "spiece.model")
    change(copied, "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    assert "pip install sentencepiece protobuf" in refusal(str(copied))


def test_weights_that_are_missing(copied):
    weights = load_file(copied / "model.safetensors")
    del weights["logit_bias"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert "such as logit_bias" in refusal(str(copied))


def test_a_text_model(copied):
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(copied)
    assert "is a bert, which does not encode both images and texts" in refusal(str(copied))


def test_a_model_with_code_of_its_own(copied):
    change(copied, "config.json", model_type="special", auto_map={"AutoConfig": "code.SpecialConfig"})
    assert "Python code of its own" in refusal(str(copied))


def test_an_unknown_kind_of_model(copied):
    change(copied, "config.json", model_type="special")
    assert "config.json cannot be used" in refusal(str(copied))


def test_preprocessing_of_another_size(copied):
    change(copied, "preprocessor_config.json", size={"height": 336, "width": 336})
    assert "cannot be used as a dual encoder" in refusal(str(copied))


def test_wrong_options(clip_folder):
    assert "unknown precision 'fp8'" in refusal(str(clip_folder), precision="fp8")
    assert "device 'gpu' cannot be used" in refusal(str(clip_folder), device="gpu")
    assert "leave revision 'main' out" in refusal(str(clip_folder), revision="main")


def test_no_such_folder():
    began = time.monotonic()
    said = refusal("./no/such/folder")
    assert "--model PATH" in said
    assert "--model demo" in said
    assert time.monotonic() - began < 2


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
from clipsieve import encoders
from clipsieve.errors import ModelError

torch.set_num_threads(1)
encoder = encoders.load("demo")
size = encoder.preprocessing.height
inputs = np.random.default_rng(0).integers(0, 256, (1024, size, size, 3), dtype=np.uint8)
expected = np.concatenate([encoder.images(inputs[i : i + 32]) for i in range(0, 1024, 32)])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), resource.RLIM_INFINITY))
try:
    found = encoder.images(inputs)
except ModelError as failure:
    print(failure)
else:
    print(len(found), encoder._most, float(np.abs(found - expected).max()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory the way Linux does")
def test_a_batch_that_does_not_fit_in_memory_is_halved():
    command = [sys.executable, "-c", LITTLE_MEMORY, str(100 * 2**20)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, most, difference = done.stdout.split()
    assert int(count) == 1024
    assert 1 <= int(most) <= 512
    assert float(difference) < 1e-5


def test_memory_too_small_for_one_input_is_one_line(clip_folder, monkeypatch):
    encoder = load(clip_folder)

    def forward(**_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nMore lines.")

    monkeypatch.setattr(encoder._model, "get_image_features", forward)
    with pytest.raises(ModelError, match=r"^cpu has too little memory .*Tried to allocate 20 MiB.*--device cpu$"):
        encoder.images(np.zeros((4, 224, 224, 3), np.uint8))
