"""A CLIP checkpoint of ViT-B/32's architecture with random weights: speed does not depend on the weights."""

from __future__ import annotations

import itertools
import json
import math
import string
from pathlib import Path
from typing import Final

import torch
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel

__all__ = ["LOGIT_SCALE", "VOCABULARY", "build_checkpoint"]

VOCABULARY: Final = 49408
LOGIT_SCALE: Final = 4.0
"""Small, so that the scores of random embeddings do not all round to 0 or 1."""

_END: Final = "</w>"
# Source: config.json of openai/clip-vit-base-patch32; what is absent there has transformers' defaults, which are its
# other sizes: text 12 layers of width 512 with 8 heads, images 12 layers of width 768 with 12 heads, patches of 32.
_POSITIONS: Final = 77
_IMAGE_SIZE: Final = 224
_POSITION_SCALE: Final = 0.3


def build_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """Write the checkpoint with the file layout of openai/clip-vit-base-patch32, 605 MB.

    Args:
        folder: The folder to write to; made if it is absent.
        seed: Equal seeds give equal weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merges = make_merges()
    write_tokenizer(folder, merges)
    eos = VOCABULARY - 1
    config = CLIPConfig(
        text_config={"vocab_size": VOCABULARY, "bos_token_id": eos - 1, "eos_token_id": eos, "pad_token_id": eos},
        logit_scale_init_value=math.log(LOGIT_SCALE),
    )
    model = CLIPModel(config)
    draw_weights(model, seed)
    model.save_pretrained(folder)
    # Infinity cuts texts at this length; without it, at transformers 4's default of 20 tokens for generated texts.
    content = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"max_length": _POSITIONS}
    (folder / "config.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    processor = {
        "crop_size": {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "processor_class": "CLIPProcessor",
        "resample": 3,
        "size": {"shortest_edge": _IMAGE_SIZE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2), encoding="utf-8")


def make_merges() -> list[tuple[str, str]]:
    """Return as many merges as CLIP has: runs of up to four lower-case letters, so that words take one to three tokens.

    The published merges cannot be fetched here; these give short English texts about as many tokens.
    """
    count = VOCABULARY - 2 * len(pre_tokenizers.ByteLevel.alphabet()) - 2
    letters = string.ascii_lowercase
    pairs = [first + second for first, second in itertools.product(letters, repeat=2)]
    triples = [pair + letter for pair, letter in itertools.product(pairs, letters)]
    inner = [(pair[0], pair[1]) for pair in pairs] + [(triple[:2], triple[2]) for triple in triples]
    last = [(left, right + _END) for left, right in inner]
    longer = [(triple[:3], letter + _END) for triple, letter in itertools.product(triples, letters)]
    return (inner[: len(pairs)] + last + inner[len(pairs) :] + longer)[:count]


def write_tokenizer(folder: Path, merges: list[tuple[str, str]]) -> None:
    """Write vocab.json, merges.txt and tokenizer_config.json; the end token comes last, as CLIP has it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(symbol + _END for symbol in alphabet), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    assert len(vocabulary) == VOCABULARY
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "model_max_length": _POSITIONS,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2), encoding="utf-8")


def draw_weights(model: CLIPModel, seed: int) -> None:
    """Draw every weight anew, large enough for embeddings of different inputs to differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters()):
            if tensor.ndim >= 2:
                fan_in = tensor[0].numel()
                scale = _POSITION_SCALE if "position" in name else 1.0 if "token_embedding" in name else fan_in**-0.5
                tensor.normal_(0.0, scale, generator=generator)
            elif tensor.ndim == 1:
                tensor.normal_(float("norm" in name and name.endswith("weight")), 0.1, generator=generator)
