"""Tokenizers of XLM-RoBERTa's kind and of byte-level BPE, with the files of published ones."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

from checkpoints.siglip import unigram_pieces

MODERN_TOKENS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
_XLM_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")


def write_xlm_tokenizer(folder: Path, longest: int = 512) -> int:
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
    config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": longest}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | config))
    return tokenizer.get_vocab_size()


def write_byte_tokenizer(
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
