"""Makes CLIP and SigLIP folders with random weights, for tests and benchmarks where no model hub is in reach.

    python tools/make_random_clip.py FOLDER

writes OpenAI's ViT-B/32 as its folder on the hub looks: the real architecture, image size and context, weights drawn
from a fixed seed. Its similarities mean nothing; what it costs to run is real.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedModel, SiglipConfig, SiglipModel

CLIP_START, CLIP_END = 49406, 49407  # The last two of CLIP's 49,408 tokens.
SIGLIP_END = 1

CORPUS = """
a an the of on in at with and two three some many small large red blue green yellow black white old young
photo picture image painting drawing close view side front background street road city house building room kitchen
table window door tree flower grass field mountain river sea beach sky cloud sun snow night morning water boat car
bus train bicycle plane bridge man woman child boy girl people group person standing sitting walking running holding
wearing looking eating playing dog cat bird horse cow sheep bear elephant fish food bread fruit apple orange cake
plate cup glass bottle book paper clock lamp chair bed computer phone camera shirt hat coat shoes hand face eyes hair
"""


def make_clip(folder: Path, *, layers: int = 12) -> Path:
    """Writes a CLIP ViT-B/32 with random weights, 600 MB; fewer `layers` make it smaller and quicker, else the same."""
    tower = {"num_hidden_layers": layers}
    config = CLIPConfig(
        text_config={**tower, "bos_token_id": CLIP_START, "eos_token_id": CLIP_END, "pad_token_id": CLIP_END},
        vision_config=tower,
    )
    _write_model(CLIPModel(config), folder)
    _write_clip_tokenizer(folder)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    _write_json(
        folder / "preprocessor_config.json",  # As OpenAI's folders have it: sizes as plain numbers.
        {
            "feature_extractor_type": "CLIPFeatureExtractor",
            "do_resize": True, "size": 224, "resample": 3, "do_center_crop": True, "crop_size": 224,
            "do_normalize": True, "image_mean": mean, "image_std": std,
        },
    )  # fmt: skip
    return folder


def make_siglip(folder: Path) -> Path:
    """Writes a small SigLIP with random weights: 224 x 224 pixels, 64 tokens, two narrow layers a tower."""
    marks = {"bos_token_id": SIGLIP_END, "eos_token_id": SIGLIP_END, "pad_token_id": SIGLIP_END}
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**tower, "vocab_size": 2000, "projection_size": 64, **marks},
        vision_config={**tower, "patch_size": 32},
    )
    model = SiglipModel(config)
    torch.nn.init.constant_(model.logit_scale, 4.77)  # About what training ends at.
    torch.nn.init.constant_(model.logit_bias, -12.9)
    _write_model(model, folder)
    _write_siglip_tokenizer(folder)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "SiglipImageProcessor",
            "do_resize": True, "size": {"height": 224, "width": 224}, "resample": 3,
            "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": True, "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5),
        },
    )  # fmt: skip
    return folder


def _write_model(model: PreTrainedModel, folder: Path) -> None:
    # The usual initial weights of a transformer barely move what passes through, so that all images get nearly the
    # same vector. Wider ones spread the similarities of photographs over 0 to 0.98, and small differences show.
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embedding" in name and weight.ndim < 4:
                weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
            elif weight.ndim >= 2:
                weight.normal_(std=weight[0].numel() ** -0.5, generator=generator)
            elif name.endswith(".bias"):
                weight.zero_()
    model.save_pretrained(folder)


def _merges(before: str = "", after: str = "") -> list[tuple[str, str]]:
    """The pairs that a byte-pair encoding joins, in order: those that build the corpus's words from their letters."""
    merges: dict[tuple[str, str], None] = {}
    for word in CORPUS.split():
        built, *rest = [*before, *word[:-1], word[-1] + after]
        for letter in rest:
            merges[built, letter] = None
            built += letter
    return list(merges)


def _write_clip_tokenizer(folder: Path) -> None:
    """CLIP's own form: bytes, bytes that end a word, merges; the marks of start and end have the last two ids."""
    merges = _merges(after="</w>")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *(left + right for left, right in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    vocabulary |= {"<|startoftext|>": CLIP_START, "<|endoftext|>": CLIP_END}
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer", "model_max_length": 77,
            "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
        },
    )  # fmt: skip


def _write_siglip_tokenizer(folder: Path) -> None:
    """A byte-level BPE with SigLIP's habits: lower case, an end mark that is the padding too, no attention mask."""
    merges = _merges(before="Ġ")  # A space, as a byte-level encoding writes it.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = dict.fromkeys(["<pad>", "</s>", *alphabet, *(left + right for left, right in merges)])
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", SIGLIP_END)])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, "model_input_names": ["input_ids"],
            "eos_token": "</s>", "pad_token": "</s>",
        },
    )  # fmt: skip


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(make_clip(Path(sys.argv[1])))
