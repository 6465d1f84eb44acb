"""Tokenizers of SigLIP, as files for the `tokenizers` package.

SigLIP's own class wraps the sentencepiece package and prepares texts in Python: lower case, no ASCII punctuation,
single spaces. Here a `tokenizers` normalizer does that. SigLIP 2 has Gemma's tokenizer, of lower-cased texts.

Python and this normalizer lower-case alike but for the Greek final sigma and the Turkish dotted capital I.
"""

from __future__ import annotations

import base64
import json
import re
import string
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers.utils import sentencepiece_model_pb2_new

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.errors import CheckpointError

__all__ = ["canonical_tokenizer", "is_canonical", "lower_cased"]

_SENTENCEPIECE_FILE = "spiece.model"
_SPACE = "▁"
_UNIGRAM = 1
_CONTROL, _USER_DEFINED = 3, 4
"""Values of sentencepiece's ModelType and SentencePiece.Type."""
_SPECIAL_TOKENS = {"eos": "</s>", "pad": "</s>", "unk": "<unk>"}
"""SiglipTokenizer's defaults."""


def is_canonical(source: CheckpointSource) -> bool:
    """Say whether a checkpoint has the tokenizer of the first SigLIP."""
    name = source.read_json("tokenizer_config.json").get("tokenizer_class", "SiglipTokenizer")
    return str(name).removesuffix("Fast") == "SiglipTokenizer"


def canonical_tokenizer(source: CheckpointSource) -> tuple[Tokenizer, int]:
    """Make the tokenizer of the first SigLIP, from spiece.model or else from tokenizer.json.

    Returns:
        The tokenizer, which ends every text with the end token, and the id of its padding token.

    Raises:
        CheckpointError: There is no such file, it cannot be read, or it lacks the end token or the padding token.
    Source: transformers 5.23.0, models/siglip/tokenization_siglip.py, canonicalize_text and tokenize.
    """
    path = source.folder / _SENTENCEPIECE_FILE
    try:
        if path.is_file():
            tokenizer, charsmap = _read_sentencepiece(path.read_bytes())
        else:
            path = source.folder / "tokenizer.json"
            tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
            tables = (step.get("precompiled_charsmap") for step in _steps(tokenizer))
            charsmap = base64.b64decode(next(filter(None, tables), ""))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{source.folder} holds neither {_SENTENCEPIECE_FILE} nor tokenizer.json; download one of them"
        ) from error
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise CheckpointError(f"cannot read the tokenizer {path}: {error}") from error
    config = source.read_json("tokenizer_config.json")
    tokens = [_content(config, f"{name}_token", default) for name, default in _SPECIAL_TOKENS.items()]
    eos, pad = tokens[:2]
    eos_id, pad_id = tokenizer.token_to_id(eos), tokenizer.token_to_id(pad)
    if eos_id is None or pad_id is None:
        raise CheckpointError(f"the tokenizer {path} has no token {eos!r} or {pad!r}; it belongs to another model")
    tokenizer.add_special_tokens(
        [AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=True) for token in sorted(set(tokens))]
    )
    tokenizer.normalizer = _canonicalize(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {eos}", special_tokens=[(eos, eos_id)])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, pad_id


def lower_cased(tokenizer: Tokenizer) -> Tokenizer:
    """Make a tokenizer lower-case its texts, if it does not yet; it is changed and returned.

    Source: transformers 5.23.0, models/siglip2/tokenization_siglip2.py: the texts of SigLIP 2's training were in lower
    case.
    """
    normalizer = tokenizer.normalizer
    if normalizer is None:
        tokenizer.normalizer = normalizers.Lowercase()
    elif not any(step["type"] == "Lowercase" for step in _steps(tokenizer)):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizer])
    return tokenizer


def _read_sentencepiece(content: bytes) -> tuple[Tokenizer, bytes]:
    """Return the model without normalizer, and the normalizer's table."""
    messages: Any = sentencepiece_model_pb2_new  # protobuf adds its classes when it is imported
    model = messages.ModelProto()
    model.ParseFromString(content)
    if not model.HasField("trainer_spec"):  # it follows the pieces
        raise ValueError("the file is cut off")
    if model.trainer_spec.model_type != _UNIGRAM:
        raise ValueError(f"the model type is {model.trainer_spec.model_type}, expected {_UNIGRAM} (unigram)")
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    byte_fallback = bool(model.trainer_spec.byte_fallback)  # of the multilingual SigLIP, whose pieces are mT5's
    tokenizer = Tokenizer(Unigram(pieces, unk_id=model.trainer_spec.unk_id, byte_fallback=byte_fallback))
    tokenizer.add_tokens(
        [
            AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
            for piece in model.pieces
            if piece.type in (_CONTROL, _USER_DEFINED)
        ]
    )
    return tokenizer, model.normalizer_spec.precompiled_charsmap


def _steps(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return the normalizer's steps as the tokenizer's file has them."""
    normalizer = json.loads(tokenizer.to_str())["normalizer"]
    return [] if normalizer is None else list(normalizer.get("normalizers", [normalizer]))


def _canonicalize(charsmap: bytes) -> normalizers.Normalizer:
    """Do what SiglipTokenizer does in Python, then what sentencepiece does with its table."""
    steps = [
        normalizers.Replace(_SPACE, " "),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
        *([normalizers.Precompiled(charsmap)] if charsmap else []),
        normalizers.Replace(Regex(" {2,}"), " "),
    ]
    return normalizers.Sequence(steps)


def _content(config: Mapping[str, Any], key: str, default: str) -> str:
    """Read a special token, which tokenizer_config.json gives as a string or as an object."""
    token = config.get(key) or default
    return str(token["content"] if isinstance(token, Mapping) else token)
