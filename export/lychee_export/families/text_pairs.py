"""What families have in common that read a pair of texts as one sequence: encoder, scoring head, and their contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from lychee_client.manifest import (
    CheckpointLimits,
    GoldenInput,
    GoldenPair,
    InstructionSpec,
    ModelSpec,
    PromptSpec,
    TextSpec,
)
from torch import nn

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, ModelSignature, Tensors, TensorSpec
from lychee_export.families.family import Piece, Reference, round_score
from lychee_export.families.samples import QUERIES, TEXTS
from lychee_export.families.text_format import FINE_BUCKETS, TextFormat, text_buckets, tokenize

__all__ = ["describe_text_pairs", "format_pairs", "prompt_of_texts", "refer_to_texts", "sign_text_pairs"]

_TOKENS_PER_RUN = 1024
"""A longer pair runs alone. ONNX Runtime's own kernels take 15 % longer for a token in runs of 4,096 than of 512, and
OpenVINO's 2 % (pairs of 128 tokens, bge-reranker-base's shape, one thread of a Zen 4)."""
_GOLDEN_PAIRS = ((0, 1), (0, 6), (1, 2), (2, 0), (3, 5), (4, 4))
"""Indices of (query, text)."""


def format_pairs(
    source: CheckpointSource,
    limits: Limits,
    vocab_size: int,
    pad_token_id: int,
    *longest: int,
    buckets: Sequence[int] = FINE_BUCKETS,
) -> TextFormat:
    """Return how pairs become tokens.

    Args:
        source: The checkpoint, named in messages.
        limits: What the deployment admits.
        vocab_size: The number of tokens in the model's vocabulary.
        pad_token_id: The token that the client pads with.
        longest: The longest sequences that the model and its tokenizer admit.
        buckets: The lengths to choose from, ascending.

    Raises:
        CheckpointError: The longest sequence is shorter than the smallest bucket.
    """
    return TextFormat(vocab_size, pad_token_id, text_buckets(source, limits, *longest, buckets=buckets))


def sign_text_pairs(
    hidden_size: int, limits: Limits, text: TextFormat, encoder: nn.Module, head: nn.Module
) -> tuple[tuple[Piece, Piece], ModelSignature]:
    """Declare the tensor contract: ``text_encoder`` gives a state for each pair, ``scoring_head`` its score.

    Args:
        hidden_size: The size of the state.
        limits: What the deployment admits.
        text: How texts become tokens.
        encoder: Turns ``input_ids`` and ``attention_mask`` into float32, (batch_size, hidden_size).
        head: Turns that into ``relevance_score`` and ``logits``.

    Returns:
        The two pieces, and the ensemble of them.
    """
    hidden = TensorSpec("hidden", "float32", (hidden_size,))
    batch = limits.text_batch
    encoder_signature = ModelSignature(
        "text_encoder",
        text.tensors,
        (hidden,),
        batch,
        encoder=True,
        max_run_elements=_TOKENS_PER_RUN,
    )
    head_signature = ModelSignature("scoring_head", (hidden,), SCORE_OUTPUTS, batch)
    ensemble = ModelSignature(
        "rerank_text", text.tensors, SCORE_OUTPUTS, batch, steps=(encoder_signature, head_signature)
    )

    def sample_hidden(rng: np.random.Generator, rows: int) -> Tensors:
        return {"hidden": rng.standard_normal((rows, hidden_size)).astype(np.float32)}

    pieces = (
        Piece(encoder_signature, encoder.eval(), text.sample),
        Piece(head_signature, head.eval(), sample_hidden),
    )
    return pieces, ensemble


def prompt_of_texts(template: str) -> PromptSpec:
    """Return the prompt of a model that reads no images."""
    return PromptSpec(
        template=template,
        image="",
        image_token="",
        missing_text="",
        suffix_token_ids=(),
        queries=("text",),
        documents=("text",),
    )


def describe_text_pairs(
    source: CheckpointSource,
    family: str,
    text: TextFormat,
    prompt: PromptSpec,
    own_tokens: int,
    instruction: str | None = None,
) -> ModelSpec:
    """Return what the client needs to know.

    Args:
        source: The checkpoint.
        family: The name of its family.
        text: How texts become tokens.
        prompt: How a pair becomes one text.
        own_tokens: The longest sequence that the checkpoint itself admits.
        instruction: The default instruction; None where the prompt has none.
    """
    return ModelSpec(
        family=family,
        pipeline="cross_encoder",
        model_id=source.model_id,
        revision=source.revision,
        text=TextSpec(pad_token_id=text.pad_token_id, max_tokens=text.max_tokens, buckets=text.buckets),
        prompt=prompt,
        instruction=None if instruction is None else InstructionSpec(instruction),
        checkpoint_limits=CheckpointLimits(own_tokens),
    )


def refer_to_texts(
    ensemble: ModelSignature,
    text: TextFormat,
    tokenizer_json: str,
    fill: Callable[[str, str], str],
    score: Callable[[Sequence[tuple[str, str]]], Sequence[float]],
    notes: tuple[str, ...] = (),
) -> Reference:
    """Make the ensemble's rows and the golden pairs of texts.

    Args:
        ensemble: The ensemble.
        text: How texts become tokens.
        tokenizer_json: The content of a `tokenizers` file.
        fill: Turns a query and a document into one text.
        score: Scores such pairs with transformers alone.
        notes: Lines for the user.
    """
    pairs = [(QUERIES[index % len(QUERIES)], document) for index, document in enumerate(TEXTS)]
    golden = [(QUERIES[query], TEXTS[document]) for query, document in _GOLDEN_PAIRS]
    return Reference(
        {ensemble.name: tokenize(tokenizer_json, text, [fill(*pair) for pair in pairs])},
        tuple(
            GoldenPair(GoldenInput(query), GoldenInput(document), round_score(result))
            for (query, document), result in zip(golden, score(golden), strict=True)
        ),
        notes=notes,
    )
