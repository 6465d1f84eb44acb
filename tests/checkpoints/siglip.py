"""Tiny random checkpoints of SigLIP, of SigLIP 2 with a fixed resolution and of its NaFlex variant."""

from __future__ import annotations

import json
import math
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import Siglip2Config, Siglip2Model, SiglipConfig, SiglipModel
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

from checkpoints.random_weights import randomize

_SPACE = "▁"
_CHINESE = "一只猫怎么退款流程在订单页面点击申请火箭从发射台升空小喜欢晒太阳"
_WORDS = ("the", "cat", "sofa", "cup", "of", "coffee", "yellow", "flower", "in", "day", "sleep")
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
_SIGMOID_SCALE, _SIGMOID_BIAS = math.log(6), -1.5
_SPECIAL_IDS = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
"""Values of SentencePiece.Type."""


def unigram_pieces() -> list[tuple[str, float]]:
    """Return pieces with scores: letters of both cases and punctuation too, so that wrong preparation shows."""
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, *sorted(set(_CHINESE))]
    words = [*_WORDS, *(_SPACE + word for word in _WORDS), *(_SPACE + letter for letter in "abc只")]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (_SPACE, -4.0)]
    pieces += [(letter, -6.0 - 0.01 * index) for index, letter in enumerate(letters)]
    return pieces + [(word, -3.0 - 0.01 * index) for index, word in enumerate(words)]


def write_sentencepiece(folder: Path) -> int:
    """Write spiece.model and tokenizer_config.json; return the number of tokens."""
    model = sentencepiece.ModelProto()
    model.trainer_spec.model_type = sentencepiece.TrainerSpec.UNIGRAM
    model.trainer_spec.unk_id = 2
    pieces = unigram_pieces()
    for index, (piece, score) in enumerate(pieces):
        kind = _UNKNOWN if index == 2 else _CONTROL if index < 2 else _NORMAL
        model.pieces.add(piece=piece, score=score, type=kind)
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    config = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 64, "do_lower_case": True}
    config |= {"model_input_names": ["input_ids"], "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(pieces)


def write_gemma_tokenizer(folder: Path) -> int:
    """Write tokenizer.json and tokenizer_config.json of Gemma's kind; return the number of tokens."""
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, *sorted(set(_CHINESE)), _SPACE]
    merges = [("t", "h"), ("th", "e"), (_SPACE, "c"), ("a", "t"), (_SPACE + "c", "at")]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    tokens += ["".join(pair) for pair in merges]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True}
    config |= {"padding_side": "right", "model_input_names": ["input_ids"], "pad_token": "<pad>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(tokens)


def build_siglip(folder: Path) -> Path:
    """Write a SigLIP checkpoint in bfloat16, with spiece.model and preprocessor_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    return _build_fixed(folder, write_sentencepiece(folder), resample=3, dtype=torch.bfloat16)


def build_siglip2(folder: Path) -> Path:
    """Write a SigLIP 2 checkpoint of fixed resolution: SigLIP's class with Gemma's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    return _build_fixed(folder, write_gemma_tokenizer(folder), resample=2, dtype=torch.float32)


def _build_fixed(folder: Path, vocab_size: int, resample: int, dtype: torch.dtype) -> Path:
    config = SiglipConfig(
        text_config=_TOWER | {"vocab_size": vocab_size, "max_position_embeddings": 64, **_SPECIAL_IDS},
        vision_config=_TOWER | {"image_size": 32, "patch_size": 8},
    )
    model = SiglipModel(config)
    _draw(model)
    model.to(dtype).save_pretrained(folder)
    _write_processor(folder, "SiglipImageProcessor", resample, size={"height": 32, "width": 32})
    return folder


def build_siglip2_naflex(folder: Path, *, padding_side: str = "right") -> Path:
    """Write a NaFlex checkpoint whose position table has another size than its grid."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_gemma_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": padding_side}))
    config = Siglip2Config(
        text_config=_TOWER | {"vocab_size": vocab_size, "max_position_embeddings": 64, **_SPECIAL_IDS},
        vision_config=_TOWER | {"num_patches": 25, "patch_size": 8},
    )
    model = Siglip2Model(config)
    _draw(model)
    model.save_pretrained(folder)
    _write_processor(folder, "Siglip2ImageProcessor", 2, patch_size=8, max_num_patches=18)
    return folder


def _draw(model: SiglipModel | Siglip2Model) -> None:
    randomize(model, seed=2)
    with torch.no_grad():
        model.logit_scale.fill_(_SIGMOID_SCALE)
        model.logit_bias.fill_(_SIGMOID_BIAS)


def _write_processor(folder: Path, kind: str, resample: int, **sizes: object) -> None:
    config = {"image_processor_type": kind, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    config |= {"do_normalize": True, "do_rescale": True, "do_resize": True, "resample": resample, **sizes}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
