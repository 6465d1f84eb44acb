"""Tiny random Llama Nemotron rerankers, with the files and keys that published ones have.

Sources: vllm-project/vllm, examples/pooling/score/template/nemotron-rerank.jinja and nemotron-vl-rerank.jinja; public
copies of the files llama_bidirectional_model.py and *_llama_nemotron_vl.py of nvidia/llama-nemotron-rerank-1b-v2 and
nvidia/llama-nemotron-rerank-vl-1b-v2; config.json of meta-llama/Llama-3.2-1B.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaModel, SiglipVisionConfig, SiglipVisionModel

from checkpoints.published import edit_json
from checkpoints.random_weights import randomize

TEMPERATURE = 0.8
"""Not 1, so that leaving it out shows."""
SPREAD = 1.0
"""The standard deviation of random texts' logits before the temperature."""

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3's tokenizer cuts a text before it merges bytes."""
TILE_SIZE = 32
_PROCESSOR: dict[str, Any] = {
    "auto_map": {"AutoProcessor": "processing_llama_nemotron_vl.LlamaNemotronVLRerankProcessor"},
    "processor_class": "LlamaNemotronVLRerankProcessor",
}
_VISION: dict[str, Any] = {
    "hidden_size": 24,
    "image_size": TILE_SIZE,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "patch_size": 8,
}
_FIRST, _LAST, _PADDING = "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"
_CORPUS = (
    "question:a photo of a cat on a sofa \n \n passage:The cat sleeps on the sofa all day.",
    "question:hot drink \n \n passage:A cup of coffee wakes you up in the morning.",
    "question:一只猫 \n \n passage:小猫喜欢晒太阳 退款流程 在订单页面点击申请退款",
)
_MERGED_TOKENS = 330
_LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 64,
    },
}


def build_nemotron_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of nvidia/llama-nemotron-rerank-1b-v2: bfloat16, with code of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_llama_tokenizer(folder)
    config = make_language_config(tokenizer)
    model = LlamaForSequenceClassification(config)
    randomize(model, seed=11, gain=1.5)
    spread_scores(model.score, model.model, config.vocab_size)
    model.to(torch.bfloat16).save_pretrained(folder)
    name = "llama_bidirectional_model"
    code = {
        "AutoConfig": f"{name}.LlamaBidirectionalConfig",
        "AutoModelForSequenceClassification": f"{name}.LlamaBidirectionalForSequenceClassification",
    }
    edit_json(
        folder / "config.json",
        architectures=["LlamaBidirectionalForSequenceClassification"],
        auto_map=code,
        model_type="llama_bidirec",
        pooling="avg",
        rope_parameters=None,
        rope_scaling=_LANGUAGE["rope_scaling"],
        rope_theta=_LANGUAGE["rope_theta"],
        temperature=TEMPERATURE,
    )
    (folder / f"{name}.py").write_text("raise RuntimeError('the code of a checkpoint was run')\n")
    return folder


def build_nemotron_vl_reranker(folder: Path, *, nested: bool = True) -> Path:
    """Write a checkpoint with the layout of nvidia/llama-nemotron-rerank-vl-1b-v2.

    Args:
        folder: Where to.
        nested: Whether the vision tower's names are those of transformers 4, which has one more level of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_llama_tokenizer(folder, "<img>", "</img>", "<IMG_CONTEXT>")
    edit_json(folder / "tokenizer_config.json", model_max_length=10240, **_PROCESSOR)
    language = make_language_config(tokenizer)
    vision = SiglipVisionModel(SiglipVisionConfig(**_VISION))  # with the layers that pool, which nothing reads
    towers = nn.Module()
    towers.vision_model, towers.language_model = vision, LlamaModel(language)
    merged, width = 4 * _VISION["hidden_size"], language.hidden_size
    towers.mlp1 = nn.Sequential(nn.LayerNorm(merged), nn.Linear(merged, width), nn.GELU(), nn.Linear(width, width))
    model = nn.Module()
    model.model, model.score = towers, nn.Linear(width, 1, bias=False)
    randomize(model, seed=12, gain=1.5)
    spread_scores(model.score, towers.language_model, language.vocab_size)
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    weights["score.weight"] = model.score.weight.detach()
    if nested:
        level = "model.vision_model."
        weights = {name.replace(level, f"{level}vision_model."): tensor for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    llm = language.to_dict() | {
        "architectures": ["LlamaBidirectionalForSequenceClassification"],
        "model_type": "llama_bidirec",
        "pooling": "avg",
        "rope_scaling": _LANGUAGE["rope_scaling"],
        "rope_theta": _LANGUAGE["rope_theta"],
        "temperature": 1.0,
    }
    del llm["rope_parameters"]
    ranker = "LlamaNemotronVLForSequenceClassification"
    config = {
        "architectures": [ranker],
        "auto_map": {
            "AutoConfig": f"configuration_llama_nemotron_vl.{ranker}Config",
            "AutoModel": f"modeling_llama_nemotron_vl.{ranker}",
            "AutoModelForSequenceClassification": f"modeling_llama_nemotron_vl.{ranker}",
            **_PROCESSOR["auto_map"],
        },
        "bidirectional_attention": True,
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": TILE_SIZE,
        "id2label": {"0": "LABEL_0"},
        "img_context_token_id": tokenizer.token_to_id("<IMG_CONTEXT>"),
        "label2id": {"LABEL_0": 0},
        "llm_config": llm,
        "max_input_tiles": 4,
        "model_type": "llama_nemotron_vl_rerank",
        "p_max_length": 10240,
        "passage_prefix": "passage:",
        "pooling": "avg",
        "prompt_template": "v1",
        "ps_version": "v2",
        "q_max_length": 512,
        "query_prefix": "query:",
        "select_layer": -1,
        "temperature": TEMPERATURE,
        "template": "bidirectional-llama-retriever",
        "torch_dtype": "bfloat16",
        "use_thumbnail": True,
        "vision_config": {"model_type": "siglip_vision_model", **_VISION},
        "vocab_size": language.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    processor = {
        "dynamic_image_size": True,
        "force_image_size": TILE_SIZE,
        "max_input_tiles": 4,
        "num_image_token": 4,
        "padding": True,
        "prompt_template": "v1",
        "template": "bidirectional-llama-retriever",
        "use_thumbnail": True,
    }
    (folder / "processor_config.json").write_text(json.dumps(processor | _PROCESSOR, indent=2))
    for name in ("configuration", "modeling", "processing"):
        (folder / f"{name}_llama_nemotron_vl.py").write_text("raise RuntimeError('the code of a checkpoint was run')\n")
    return folder


@torch.no_grad()
def spread_scores(score: Any, language_model: Any, vocab_size: int) -> None:
    """Change the head so that the scores of texts lie on both sides of 0.5: it has no bias that could do it."""
    language_model.config.is_causal = False
    ids = torch.randint(vocab_size, (32, 24), generator=torch.Generator().manual_seed(0))
    states = language_model(input_ids=ids).last_hidden_state.mean(1)  # (32, hidden_size)
    middle = states.mean(0)
    score.weight.sub_((score.weight @ middle)[:, None] * middle / middle.square().sum())
    score.weight.mul_(SPREAD / (states @ score.weight[0]).std())
    del language_model.config.is_causal


def make_language_config(tokenizer: Tokenizer) -> LlamaConfig:
    """Return the configuration of a small Llama 3.2 with one label."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        bos_token_id=tokenizer.token_to_id(_FIRST),
        eos_token_id=tokenizer.token_to_id(_LAST),
        pad_token_id=tokenizer.token_to_id(_PADDING),
        id2label={0: "LABEL_0"},
        label2id={"LABEL_0": 0},
        **copy.deepcopy(_LANGUAGE),  # transformers writes into it
    )


def write_llama_tokenizer(folder: Path, *more: str) -> Tokenizer:
    """Write tokenizer.json and tokenizer_config.json of Llama 3's kind: special tokens last, the first one added.

    Args:
        folder: Where to.
        more: Further special tokens.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=_MERGED_TOKENS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens([_FIRST, _LAST, _PADDING, *more])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=[_FIRST, "$A"],
                pair=[_FIRST, "$A", f"{_FIRST}:1", "$B:1"],
                special_tokens=[(_FIRST, tokenizer.token_to_id(_FIRST))],
            ),
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": _FIRST,
        "eos_token": _LAST,
        "pad_token": _PADDING,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer
