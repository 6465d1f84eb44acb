"""How texts become tokens: what the client is told, and what samples and references are made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import transformers
from lychee_client.manifest import TextSpec
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import Axis, Tensors, TensorSpec
from lychee_export.errors import CheckpointError

__all__ = [
    "BUCKETS",
    "FINE_BUCKETS",
    "PACKED_BUCKETS",
    "TextFormat",
    "check_normalizer",
    "pad_ids",
    "plain_tokenizer",
    "text_buckets",
    "tokenize",
]

BUCKETS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144)
"""Lengths to which the client pads texts. Of texts of 5 to 14 words, powers of two alone make 35 % more tokens than
there are, these 18 %. More lengths would leave the server fewer requests of one shape to merge."""

FINE_BUCKETS = (
    *range(16, 128, 8),
    *(length for start in (128, 256, 512, 1024, 2048, 4096) for length in range(start, 2 * start, start // 8)),
)
"""Lengths for models of which a token costs so much that a request more costs less than padding: of pairs of 12 to 310
tokens these make 5 % more tokens than there are, BUCKETS 20 %."""

PACKED_BUCKETS = (
    *range(16, 64, 16),
    *range(64, 256, 32),
    *(length for start in (256, 512, 1024, 2048, 4096) for length in range(start, 2 * start, start // 4)),
)
"""Lengths for models that compute no padding but in their attention, which is little work: requests of more texts."""


@dataclass(frozen=True)
class TextFormat:
    """How the client turns a text into ``input_ids`` and ``attention_mask``.

    Args:
        vocab_size: The number of tokens in the model's vocabulary.
        pad_token_id: The token that the client pads with.
        buckets: The lengths to which the client pads. The last is the most tokens of a text; a single one is the only
            length that the encoder takes.
        query_prefix: What is put before a query.
        document_prefix: What is put before a document.
    """

    vocab_size: int
    pad_token_id: int
    buckets: tuple[int, ...]
    query_prefix: str = ""
    document_prefix: str = ""

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text."""
        return self.buckets[-1]

    @property
    def tensors(self) -> tuple[TensorSpec, TensorSpec]:
        """The encoder's inputs."""
        length = Axis("sequence_length", self.buckets) if len(self.buckets) > 1 else self.max_tokens
        return (
            TensorSpec("input_ids", "int64", (length,), pad_value=self.pad_token_id, maximum=self.vocab_size - 1),
            TensorSpec("attention_mask", "int64", (length,), maximum=1),
        )

    @property
    def spec(self) -> TextSpec:
        """What the client is told."""
        return TextSpec(
            query_prefix=self.query_prefix,
            document_prefix=self.document_prefix,
            pad_token_id=self.pad_token_id,
            max_tokens=self.max_tokens,
            buckets=self.buckets,
        )

    def sample(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make random token sequences of random lengths."""
        first = self.pad_token_id + 1 if self.pad_token_id < self.vocab_size // 2 else 0
        lengths = rng.integers(1, self.buckets[0] + 1, rows)
        mask = np.arange(self.buckets[0]) < lengths[:, None]
        ids = rng.integers(first, self.vocab_size, mask.shape)
        return {"input_ids": np.where(mask, ids, self.pad_token_id), "attention_mask": mask.astype(np.int64)}


def text_buckets(
    source: CheckpointSource, limits: Limits, *longest: int, buckets: Sequence[int] = BUCKETS
) -> tuple[int, ...]:
    """Choose the lengths to which the client pads.

    Args:
        source: The checkpoint, named in messages.
        limits: What the deployment admits.
        longest: The longest sequences that the model and its tokenizer admit.
        buckets: The lengths to choose from, ascending.

    Raises:
        CheckpointError: The longest sequence is shorter than the smallest bucket.
    """
    max_tokens = min(longest) if limits.max_tokens is None else min(limits.max_tokens, *longest)
    if max_tokens < buckets[0]:
        raise CheckpointError(
            f"the model in {source.folder} reads {max_tokens} tokens, expected at least {buckets[0]}; see "
            "max_position_embeddings in config.json and model_max_length in tokenizer_config.json"
        )
    return (*(bucket for bucket in buckets if bucket < max_tokens), max_tokens)


def plain_tokenizer(source: CheckpointSource, tokenizer: Any, vocab_size: int) -> Tokenizer:
    """Copy the `tokenizers` object of a tokenizer, without padding and truncation.

    Raises:
        CheckpointError: The model has fewer embeddings than the tokenizer has tokens, or there is no padding token.
    """
    if len(tokenizer) > vocab_size:
        raise CheckpointError(
            f"the tokenizer in {source.folder} has {len(tokenizer)} tokens, the model has embeddings for {vocab_size}; "
            "they belong to different models"
        )
    if tokenizer.pad_token_id is None:
        raise CheckpointError(f"the tokenizer in {source.folder} has no padding token; set pad_token in its config")
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    return plain


def check_normalizer(source: CheckpointSource, plain: Tokenizer) -> None:
    """Refuse a tokenizer whose class in transformers drops what tokenizer.json does to a text first.

    Raises:
        CheckpointError: It does.
    """
    normalizer = source.read_json("tokenizer.json").get("normalizer")
    if normalizer and plain.normalizer is None:
        raise CheckpointError(
            f"{source.folder / 'tokenizer.json'} has a normalizer ({normalizer.get('type')}), which transformers "
            f"{transformers.__version__} drops for the tokenizer_class of tokenizer_config.json, so texts would have "
            'other tokens than those that the model was trained with. Set tokenizer_class to "PreTrainedTokenizerFast"'
        )


def pad_ids(texts: Sequence[Sequence[int] | NDArray[np.int64]], length: int, pad_token_id: int) -> Tensors:
    """Pad token ids on the right: ``input_ids`` and ``attention_mask``, int64, (texts, length)."""
    rows: Tensors = {
        "input_ids": np.full((len(texts), length), pad_token_id, np.int64),
        "attention_mask": np.zeros((len(texts), length), np.int64),
    }
    for row, ids in enumerate(texts):
        rows["input_ids"][row, : len(ids)] = ids
        rows["attention_mask"][row, : len(ids)] = 1
    return rows


def tokenize(tokenizer_json: str, text: TextFormat, texts: Sequence[str]) -> Tensors:
    """Tokenize and pad as the client does, to a bucket that is not the largest, if there are several."""
    buckets = text.buckets[:-1] or text.buckets
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.enable_truncation(buckets[-1])
    longest = max(len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts)))
    tokenizer.enable_padding(pad_id=text.pad_token_id, length=next(bucket for bucket in buckets if bucket >= longest))
    encodings = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
    }
