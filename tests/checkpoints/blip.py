"""A tiny random checkpoint of BLIP image-text matching."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BlipConfig, BlipForImageTextRetrieval

from checkpoints.bert_tokenizer import write_bert_tokenizer
from checkpoints.random_weights import randomize

_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}


def build_blip(folder: Path) -> Path:
    """Write a checkpoint with the file layout of Salesforce/blip-itm-base-coco."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_bert_tokenizer(folder)
    config = BlipConfig(
        text_config=_TOWER
        | {"vocab_size": vocab_size, "max_position_embeddings": 64, "encoder_hidden_size": 32, "projection_dim": 16}
        | {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0},
        vision_config=_TOWER | {"image_size": 24, "patch_size": 8},
        image_text_hidden_size=16,
        projection_dim=16,
    )
    model = BlipForImageTextRetrieval(config)
    randomize(model, seed=3)
    with torch.no_grad():
        model.itm_head.weight.mul_(2)
        model.itm_head.bias.copy_(torch.tensor([0.0, 4.0]))
    model.save_pretrained(folder)
    processor = {"image_processor_type": "BlipImageProcessor", "do_normalize": True, "do_rescale": True}
    processor |= {"do_resize": True, "resample": 3, "size": {"height": 24, "width": 24}}
    processor |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
