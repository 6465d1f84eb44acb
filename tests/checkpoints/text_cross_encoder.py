"""Tiny random text cross-encoders, with the files and keys that published rerankers have.

Sources: the file listings and configurations of cross-encoder/ms-marco-MiniLM-L6-v2, BAAI/bge-reranker-base and
Alibaba-NLP/gte-reranker-modernbert-base on the hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from checkpoints.bert_tokenizer import write_bert_tokenizer
from checkpoints.random_weights import randomize
from checkpoints.siglip import unigram_pieces

_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_ONE_LABEL = {"id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
_XLM_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
_ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_MODERN_TOKENS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")


def build_bert_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of cross-encoder/ms-marco-MiniLM-L6-v2."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_bert_tokenizer(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    config = BertConfig(vocab_size=vocab_size, max_position_embeddings=128, **_SIZES, **_ONE_LABEL)
    _save(BertForSequenceClassification(config), folder, seed=5, bias=-5.5)
    activation = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0.dev0"}
    _edit(folder / "config.json", sentence_transformers=activation, position_embedding_type="absolute")
    return folder


def build_xlm_roberta_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of BAAI/bge-reranker-base, whose positions begin after the padding token's."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = _write_xlm_tokenizer(folder)
    config = XLMRobertaConfig(
        vocab_size=vocab_size, max_position_embeddings=130, type_vocab_size=1, pad_token_id=1, **_SIZES, **_ONE_LABEL
    )
    _save(XLMRobertaForSequenceClassification(config), folder, seed=6, bias=-2.8)
    return folder


def build_roberta_reranker(folder: Path) -> Path:
    """Write a checkpoint of plain RoBERTa."""
    folder.mkdir(parents=True, exist_ok=True)
    first, last = "<s>", "</s>"
    pair = [first, "$A", last, last, "$B", last]
    vocab_size = _write_byte_tokenizer(folder, _ROBERTA_TOKENS, (first, last), pair, "RobertaTokenizer", 128)
    config = RobertaConfig(
        vocab_size=vocab_size, max_position_embeddings=130, type_vocab_size=1, pad_token_id=1, **_SIZES, **_ONE_LABEL
    )
    _save(RobertaForSequenceClassification(config), folder, seed=7, bias=3.5)
    return folder


def build_modernbert_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of Alibaba-NLP/gte-reranker-modernbert-base: float16, means, old keys."""
    folder.mkdir(parents=True, exist_ok=True)
    first, last = "[CLS]", "[SEP]"
    pair = [first, "$A", last, "$B", last]
    vocab_size = _write_byte_tokenizer(folder, _MODERN_TOKENS, (first, last), pair, "PreTrainedTokenizerFast", 1024)
    ids = {"cls_token_id": 1, "bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2, "pad_token_id": 3}
    config = ModernBertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=1024,
        local_attention=8,
        classifier_pooling="mean",
        **(_SIZES | {"num_hidden_layers": 4}),
        **ids,
        **_ONE_LABEL,
    )
    _save(ModernBertForSequenceClassification(config), folder, seed=8, bias=-2.3, dtype=torch.float16)
    thetas = {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3}
    _edit(folder / "config.json", layer_types=None, rope_parameters=None, layer_norm_eps=1e-5, **thetas)
    return folder


def _save(model: Any, folder: Path, seed: int, bias: float, dtype: torch.dtype = torch.float32) -> None:
    """Write weights; the bias of the last layer moves the scores of usual texts to the middle of their range."""
    randomize(model, seed=seed, gain=1.5)
    last = model.classifier if isinstance(model.classifier, torch.nn.Linear) else model.classifier.out_proj
    with torch.no_grad():
        last.weight.mul_(3)
        last.bias.fill_(bias)
    model.to(dtype).save_pretrained(folder)


def _edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}, indent=2))


def _write_xlm_tokenizer(folder: Path) -> int:
    """Write tokenizer.json and tokenizer_config.json of XLM-RoBERTa's kind; return the number of tokens."""
    pieces = [(token, 0.0) for token in _XLM_TOKENS] + unigram_pieces()[3:]
    tokenizer = Tokenizer(Unigram([*pieces, ("<mask>", 0.0)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([*_XLM_TOKENS, AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    tokens |= {"unk_token": "<unk>", "mask_token": "<mask>"}
    config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | config))
    return tokenizer.get_vocab_size()


def _write_byte_tokenizer(
    folder: Path, tokens: tuple[str, ...], ends: tuple[str, str], pair: list[str], kind: str, longest: int
) -> int:
    """Write a byte-level BPE tokenizer as tokenizer.json; return the number of tokens."""
    merges = [("t", "h"), ("th", "e"), ("Ġ", "c"), ("a", "t"), ("Ġc", "at"), ("o", "n"), ("Ġ", "the")]
    pieces = [*tokens, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    if kind != "RobertaTokenizer":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    mask = tokens[-1]
    tokenizer.add_special_tokens([*tokens[:-1], AddedToken(mask, lstrip=True)])
    special = [(token, pieces.index(token)) for token in ends]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[ends[0], "$A", ends[1]], pair=pair, special_tokens=special
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"cls_token": ends[0], "sep_token": ends[1], "mask_token": mask}
    named |= {"pad_token": next(token for token in tokens if "pad" in token.lower())}
    named |= {"unk_token": next(token for token in tokens if "unk" in token.lower())}
    config = {"tokenizer_class": kind, "model_max_length": longest}
    config |= {"model_input_names": ["input_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | config))
    return tokenizer.get_vocab_size()
