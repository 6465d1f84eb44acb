"""llama-nemotron-rerank-1b-v2: query and document as one text, and the sigmoid of the one logit as the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lychee_client.manifest import CheckpointLimits, GoldenInput, GoldenPair, ModelSpec, PromptSpec, TextSpec
from transformers import LlamaForSequenceClassification

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, ModelSignature, Tensors, TensorSpec
from lychee_export.families.family import Checkpoint, ModelCard, Piece, Reference, round_score
from lychee_export.families.nemotron.checks import (
    check_classes,
    check_labels,
    check_language_model,
    read_temperature,
)
from lychee_export.families.nemotron.llama import ScoringHead, TextEncoder
from lychee_export.families.nemotron.prompt import LOGITS_NOTE, TEMPLATE, fill
from lychee_export.families.samples import QUERIES, TEXTS
from lychee_export.families.text_format import TextFormat, plain_tokenizer, text_buckets, tokenize

__all__ = ["MODEL_TYPE", "load"]

MODEL_TYPE = "llama_bidirec"
_ARCHITECTURE = "LlamaBidirectionalForSequenceClassification"
_CODE = (_ARCHITECTURE, "LlamaBidirectionalConfig", "LlamaBidirectionalModel")
_TRAINED_TOKENS = 8192
"""The longest sequence by the model card; config.json has the 131,072 positions of Llama 3.2."""
_TOKENS_PER_RUN = 4096
_GOLDEN_PAIRS = ((0, 1), (0, 6), (1, 2), (2, 0), (3, 5), (4, 4))
"""Indices of (query, text)."""


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """See ``nemotron.load``."""
    check_classes(source, _ARCHITECTURE, _CODE)
    check_labels(source)
    check_language_model(source, source.config, source.config.get("pooling", "avg"))
    temperature = read_temperature(source)
    model: Any = source.load_model(LlamaForSequenceClassification)
    model.config.is_causal = False  # for the reference: transformers then makes masks for both directions
    tokenizer = source.load_tokenizer(model.config)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # as the model card does; nothing reads padding
    tokenizer_json = plain_tokenizer(source, tokenizer, model.config.vocab_size).to_str()
    own_tokens = min(model.config.max_position_embeddings, tokenizer.model_max_length, _TRAINED_TOKENS)
    text = TextFormat(
        vocab_size=model.config.vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        buckets=text_buckets(source, limits, own_tokens),
    )
    pieces, ensemble = _sign(model, limits, text, temperature)
    spec = ModelSpec(
        family="nemotron",
        pipeline="cross_encoder",
        model_id=source.model_id,
        revision=source.revision,
        text=TextSpec(pad_token_id=text.pad_token_id, max_tokens=text.max_tokens, buckets=text.buckets),
        prompt=PromptSpec(
            template=TEMPLATE,
            image="",
            image_token="",
            missing_text="",
            suffix_token_ids=(),
            queries=("text",),
            documents=("text",),
        ),
        checkpoint_limits=CheckpointLimits(own_tokens),
    )

    def make_reference() -> Reference:
        prompts = [fill(QUERIES[index % len(QUERIES)], document) for index, document in enumerate(TEXTS)]
        golden = [(QUERIES[query], TEXTS[document]) for query, document in _GOLDEN_PAIRS]
        scores = _score(model, tokenizer, text.max_tokens, temperature, golden)
        return Reference(
            {ensemble.name: tokenize(tokenizer_json, text, prompts)},
            tuple(
                GoldenPair(GoldenInput(query), GoldenInput(document), round_score(score))
                for (query, document), score in zip(golden, scores, strict=True)
            ),
            notes=(LOGITS_NOTE,),
        )

    return Checkpoint(ModelCard(spec, (ensemble,), tokenizer_json), pieces, make_reference)


def _sign(
    model: Any, limits: Limits, text: TextFormat, temperature: float
) -> tuple[tuple[Piece, Piece], ModelSignature]:
    """Declare the family's tensor contract."""
    hidden_size, batch = int(model.config.hidden_size), limits.text_batch
    hidden = TensorSpec("hidden", "float32", (hidden_size,))
    encoder_signature = ModelSignature(
        "text_encoder",
        text.tensors,
        (hidden,),
        batch,
        encoder=True,
        max_run_elements=max(_TOKENS_PER_RUN, text.max_tokens),
    )
    head_signature = ModelSignature("scoring_head", (hidden,), SCORE_OUTPUTS, batch)
    ensemble = ModelSignature(
        "rerank_text", text.tensors, SCORE_OUTPUTS, batch, steps=(encoder_signature, head_signature)
    )

    def sample_hidden(rng: np.random.Generator, rows: int) -> Tensors:
        return {"hidden": rng.standard_normal((rows, hidden_size)).astype(np.float32)}

    pieces = (
        Piece(encoder_signature, TextEncoder(model.model).eval(), text.sample),
        Piece(head_signature, ScoringHead(model.score, temperature).eval(), sample_hidden),
    )
    return pieces, ensemble


@torch.no_grad()
def _score(
    model: Any, tokenizer: Any, max_tokens: int, temperature: float, pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Score pairs with transformers' ``LlamaModel``, one at a time and so without padding."""
    scores = []
    for query, document in pairs:
        inputs = tokenizer(fill(query, document), return_tensors="pt", truncation=True, max_length=max_tokens)
        states = model.model(**inputs, use_cache=False).last_hidden_state  # (1, sequence_length, hidden_size)
        scores.append(float(torch.sigmoid(model.score(states.mean(1))[0, 0] / temperature)))
    return scores
