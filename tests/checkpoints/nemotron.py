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
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForSequenceClassification

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
    edit(
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


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}, indent=2))
