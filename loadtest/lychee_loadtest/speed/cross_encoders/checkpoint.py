"""A checkpoint with random weights and the shape of BAAI/bge-reranker-base, because none can be taken for granted here.

Speed does not depend on what the weights are. Texts are made of words that are one token each, so that their lengths in
tokens are known without a published vocabulary.
"""

from __future__ import annotations

import itertools
import json
import string
from pathlib import Path
from typing import Final

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

__all__ = ["LAYERS", "VOCABULARY", "build_checkpoint", "list_words"]

LAYERS: Final = 12
VOCABULARY: Final = 250_002
_POSITIONS: Final = 514
_TOKENS: Final = ("<s>", "<pad>", "</s>", "<unk>")
_MASK: Final = "<mask>"
_SPACE: Final = "▁"
_WORD_LETTERS: Final = 4
_SCORE_BIAS: Final = 0.0


def build_checkpoint(folder: Path, layers: int = LAYERS, seed: int = 0) -> None:
    """Write the checkpoint, 1.1 GB with all its layers.

    Args:
        folder: The folder to write to; made if it is absent.
        layers: How many layers it has; fewer are for trying the benchmark out.
        seed: Equal seeds give equal weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder)
    config = XLMRobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=_POSITIONS,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        id2label={0: "LABEL_0"},
        label2id={"LABEL_0": 0},
    )
    model = XLMRobertaForSequenceClassification(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters()):
            if tensor.ndim >= 2:
                scale = 1.0 if "embeddings" in name else tensor.shape[1] ** -0.5
                tensor.normal_(0.0, scale, generator=generator)
            else:
                tensor.normal_(float("norm" in name.lower() and name.endswith("weight")), 0.1, generator=generator)
        model.classifier.out_proj.bias.fill_(_SCORE_BIAS)
    model.save_pretrained(folder)


def list_words() -> list[str]:
    """Return the words that are one token each, in the order of their ids."""
    pieces = len(_TOKENS) + len(_letters()) + 1  # the mask comes last
    words = ("".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=_WORD_LETTERS))
    return list(itertools.islice(words, VOCABULARY - pieces))


def _letters() -> list[str]:
    return [_SPACE, *string.ascii_letters, *string.digits, *string.punctuation]


def _write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json of XLM-RoBERTa's kind, with as many pieces as it has."""
    pieces = [(token, 0.0) for token in _TOKENS] + [(letter, -12.0) for letter in _letters()]
    pieces += [(_SPACE + word, -10.0) for word in list_words()]
    tokenizer = Tokenizer(Unigram([*pieces, (_MASK, 0.0)], unk_id=_TOKENS.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([*_TOKENS, AddedToken(_MASK, lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    tokens |= {"unk_token": "<unk>", "mask_token": _MASK}
    config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": _POSITIONS - 2}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | config), encoding="utf-8")
