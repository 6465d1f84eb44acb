"""Tiny random ColBERT checkpoints, with the files and keys that published ones have.

Sources: the file listings and configurations of colbert-ir/colbertv2.0 and answerdotai/answerai-colbert-small-v1 on the
hub; for jinaai/jina-colbert-v2 jina's configuration_xlm_roberta.py, the names of weights in vLLM's models/colbert.py,
and the markers and lengths that PyLate's users pass; for lightonai/GTE-ModernColBERT-v1 its model card; for
lightonai/LateOn descriptions of its three linear layers. Their other settings are those that PyLate 1.6.0 writes.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, BertConfig, BertModel, ModernBertConfig, ModernBertModel

from checkpoints.bert_tokenizer import write_bert_tokenizer
from checkpoints.published import edit_json
from checkpoints.random_weights import draw_weights, linear_shapes, norm_shapes, randomize
from checkpoints.text_tokenizers import MODERN_TOKENS, write_byte_tokenizer, write_xlm_tokenizer

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
_PYLATE = {
    "model_type": "ColBERT",
    "__version__": {"sentence_transformers": "5.3.0", "transformers": "4.57.1", "pytorch": "2.9.0"},
    "prompts": {"query": "", "document": ""},
    "default_prompt_name": None,
    "similarity_fn_name": "MaxSim",
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 32,
    "document_length": 90,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list(string.punctuation),
    "do_query_expansion": True,
}


def build_colbert(folder: Path) -> Path:
    """Write a checkpoint with the layout of colbert-ir/colbertv2.0: the pooler's weights lie there, unused."""
    return _build(folder, seed=11, dim=128)


def build_answerai_colbert(folder: Path) -> Path:
    """Write a checkpoint with the layout of answerdotai/answerai-colbert-small-v1, whose masks are read here.

    The published one's are not; so both ways are there.
    """
    return _build(folder, seed=12, dim=96, attend_to_mask_tokens=True, doc_maxlen=64, query_maxlen=24)


def build_jina_colbert(folder: Path) -> Path:
    """Write a checkpoint with the layout of jinaai/jina-colbert-v2: bfloat16, rotary positions, markers of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    write_xlm_tokenizer(folder, longest=8194)
    vocab_size = _add_tokens(folder, "[QueryMarker]", "[DocumentMarker]")
    width, middle = _SIZES["hidden_size"], _SIZES["intermediate_size"]
    shapes = {"roberta.embeddings.word_embeddings.weight": (vocab_size, width)}
    shapes |= {"roberta.embeddings.token_type_embeddings.weight": (1, width)} | norm_shapes("roberta.emb_ln", width)
    for index in range(_SIZES["num_hidden_layers"]):
        layer = f"roberta.encoder.layers.{index}"
        shapes |= linear_shapes(f"{layer}.mixer.Wqkv", 3 * width, width)
        shapes |= linear_shapes(f"{layer}.mixer.out_proj", width, width)
        shapes |= linear_shapes(f"{layer}.mlp.fc1", middle, width) | linear_shapes(f"{layer}.mlp.fc2", width, middle)
        shapes |= norm_shapes(f"{layer}.norm1", width) | norm_shapes(f"{layer}.norm2", width)
    shapes |= linear_shapes("roberta.pooler.dense", width, width) | {"linear.weight": (128, width)}
    _save_weights(folder, draw_weights(shapes, seed=13, gain=1.5), torch.bfloat16)
    owner = "jinaai/xlm-roberta-flash-implementation--"
    code = {
        "AutoConfig": f"{owner}configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": f"{owner}modeling_xlm_roberta.XLMRobertaModel",
        "AutoModelForMaskedLM": f"{owner}modeling_xlm_roberta.XLMRobertaForMaskedLM",
    }
    config = {"architectures": ["HF_ColBERT"], "auto_map": code, "model_type": "xlm-roberta", "vocab_size": vocab_size}
    config |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
    config |= {"max_position_embeddings": 8194, "type_vocab_size": 1, "torch_dtype": "bfloat16", "use_flash_attn": True}
    config |= {"position_embedding_type": "rotary", "rotary_emb_base": 20000.0, "emb_pooler": None}
    config |= {"lora_adaptations": None, "lora_rank": 4, "truncate_dim": None, "attention_probs_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config | _SIZES, indent=2))
    _write_metadata(
        folder, 128, query_token_id="[QueryMarker]", doc_token_id="[DocumentMarker]", attend_to_mask_tokens=True
    )
    return folder


def build_pylate_colbert(folder: Path) -> Path:
    """Write a checkpoint with the layout of lightonai/colbertv2.0: BERT as PyLate saves it."""
    vocab_size = _write_bert_tokenizer(folder)
    config = BertConfig(vocab_size=vocab_size, max_position_embeddings=128, **_SIZES)
    settings = {"query_prefix": "[unused0]", "document_prefix": "[unused1]", "attend_to_expansion_tokens": True}
    return _save_pylate(BertModel(config), folder, [(32, 96, False)], seed=14, **settings)


def build_modern_colbert(folder: Path) -> Path:
    """Write a checkpoint with the layout of lightonai/GTE-ModernColBERT-v1."""
    return _save_pylate(_make_modernbert(folder), folder, [(32, 128, False)], seed=15)


def build_lateon(folder: Path) -> Path:
    """Write a checkpoint with the layout of lightonai/LateOn: queries are not filled, two of three layers residual."""
    layers = [(32, 64, True), (64, 64, True), (64, 48, False)]
    return _save_pylate(_make_modernbert(folder), folder, layers, seed=16, do_query_expansion=False, query_length=24)


def _build(folder: Path, seed: int, dim: int, **metadata: Any) -> Path:
    vocab_size = _write_bert_tokenizer(folder)
    config = BertConfig(vocab_size=vocab_size, max_position_embeddings=128, **_SIZES)
    model = torch.nn.ModuleDict({"bert": BertModel(config), "linear": torch.nn.Linear(32, dim, bias=False)})
    randomize(model, seed=seed, gain=1.5)
    _save_weights(folder, model.state_dict())
    settings = {"architectures": ["HF_ColBERT"], "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config.to_dict() | settings, indent=2))
    _write_metadata(folder, dim, **metadata)
    return folder


def _write_bert_tokenizer(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    write_bert_tokenizer(folder)
    path = folder / "vocab.txt"
    pieces = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([pieces[0], "[unused0]", "[unused1]", *pieces[1:]]) + "\n", encoding="utf-8")
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return len(pieces) + 2


def _make_modernbert(folder: Path) -> ModernBertModel:
    """Make a model whose tokenizer has PyLate's markers, with the space at their end."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = "[CLS]", "[SEP]"
    write_byte_tokenizer(folder, MODERN_TOKENS, ends, [ends[0], "$A", ends[1], "$B", ends[1]], "TokenizersBackend", 89)
    vocab_size = _add_tokens(folder, _PYLATE["query_prefix"], _PYLATE["document_prefix"])
    ids = {"cls_token_id": 1, "bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2, "pad_token_id": 3}
    config = ModernBertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=1024,
        local_attention=64,
        **(_SIZES | {"num_hidden_layers": 4}),
        **ids,
    )
    return ModernBertModel(config)


def _add_tokens(folder: Path, *tokens: Any) -> int:
    """Add tokens to a tokenizer as its class does; return how many there are."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def _save_pylate(model: Any, folder: Path, layers: list[tuple[int, int, bool]], seed: int, **settings: Any) -> Path:
    """Write what PyLate writes.

    Args:
        model: The transformers model.
        folder: Where the tokenizer lies already.
        layers: Of each linear layer the numbers that it takes and gives, and whether it is residual.
        seed: Equal seeds give equal weights.
        settings: What differs from most published models.
    """
    randomize(model, seed=seed)
    model.save_pretrained(folder)
    found = _PYLATE | settings
    (folder / "config_sentence_transformers.json").write_text(json.dumps(found, indent=2))
    longest = found["document_length"] - 1
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest, "do_lower_case": False}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.mask_token
    tokenizer.save_pretrained(folder)
    edit_json(folder / "tokenizer_config.json", model_max_length=longest)  # of a text without its marker
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for index, (taken, given, residual) in enumerate(layers, start=1):
        path = f"{index}_Dense"
        modules.append({"idx": index, "name": str(index), "path": path, "type": "pylate.models.Dense.Dense"})
        (folder / path).mkdir(exist_ok=True)
        config = {"in_features": taken, "out_features": given, "bias": False, "use_residual": residual}
        config |= {"activation_function": "torch.nn.modules.linear.Identity"}
        (folder / path / "config.json").write_text(json.dumps(config))
        shapes = {"linear.weight": (given, taken)} | (
            {"residual.weight": (given, taken)} if taken != given and residual else {}
        )
        _save_weights(folder / path, draw_weights(shapes, seed=seed + index, gain=1.5))
    (folder / "modules.json").write_text(json.dumps(modules, indent=2))
    return folder


def _write_metadata(folder: Path, dim: int, **metadata: Any) -> None:
    (folder / "artifact.metadata").write_text(json.dumps(_METADATA | {"dim": dim} | metadata, indent=4))


def _save_weights(folder: Path, weights: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> None:
    stored = {name: value.to(dtype).contiguous() for name, value in weights.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
