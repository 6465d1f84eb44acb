"""Tiny random ColBERT checkpoints, with the files and keys that published ones have.

Sources: the file listings and configurations of colbert-ir/colbertv2.0 and answerdotai/answerai-colbert-small-v1 on the
hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, BertConfig, BertModel

from checkpoints.bert_tokenizer import write_bert_tokenizer
from checkpoints.random_weights import randomize

_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_METADATA = {
    "query_token_id": "[unused0]",
    "doc_token_id": "[unused1]",
    "query_token": "[Q]",
    "doc_token": "[D]",
    "checkpoint": "/future/u/somebody/colbert-400000",
    "doc_maxlen": 90,
    "mask_punctuation": True,
    "query_maxlen": 32,
    "attend_to_mask_tokens": False,
    "similarity": "cosine",
}


def build_colbert(folder: Path) -> Path:
    """Write a checkpoint with the layout of colbert-ir/colbertv2.0: the pooler's weights lie there, unused."""
    return _build(folder, seed=11, dim=128)


def build_answerai_colbert(folder: Path) -> Path:
    """Write a checkpoint with the layout of answerdotai/answerai-colbert-small-v1, whose masks are read here.

    The published one's are not; so both ways are there.
    """
    return _build(folder, seed=12, dim=96, attend_to_mask_tokens=True, doc_maxlen=64, query_maxlen=24)


def _build(folder: Path, seed: int, dim: int, **metadata: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_bert_tokenizer(folder)
    path = folder / "vocab.txt"
    pieces = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([pieces[0], "[unused0]", "[unused1]", *pieces[1:]]) + "\n", encoding="utf-8")
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    config = BertConfig(vocab_size=len(pieces) + 2, max_position_embeddings=128, **_SIZES)
    model = torch.nn.ModuleDict({"bert": BertModel(config), "linear": torch.nn.Linear(32, dim, bias=False)})
    randomize(model, seed=seed, gain=1.5)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"architectures": ["HF_ColBERT"], "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config.to_dict() | settings, indent=2))
    (folder / "artifact.metadata").write_text(json.dumps(_METADATA | {"dim": dim} | metadata, indent=4))
    return folder
