"""llama-nemotron-rerank-1b-v2: query and document as one text, and the sigmoid of the one logit as the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlamaForSequenceClassification

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.families.family import Checkpoint, ModelCard, Reference
from lychee_export.families.nemotron.checks import (
    check_classes,
    check_labels,
    check_language_model,
    read_temperature,
)
from lychee_export.families.nemotron.llama import ScoringHead, TextEncoder
from lychee_export.families.nemotron.prompt import LOGITS_NOTE, TEMPLATE, fill
from lychee_export.families.text_format import plain_tokenizer
from lychee_export.families.text_pairs import (
    describe_text_pairs,
    format_pairs,
    prompt_of_texts,
    refer_to_texts,
    sign_text_pairs,
)

__all__ = ["MODEL_TYPE", "load"]

MODEL_TYPE = "llama_bidirec"
_ARCHITECTURE = "LlamaBidirectionalForSequenceClassification"
_CODE = (_ARCHITECTURE, "LlamaBidirectionalConfig", "LlamaBidirectionalModel")
_TRAINED_TOKENS = 8192
"""The longest sequence by the model card; config.json has the 131,072 positions of Llama 3.2."""


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
    text = format_pairs(source, limits, model.config.vocab_size, tokenizer.pad_token_id, own_tokens)
    encoder, head = TextEncoder(model.model), ScoringHead(model.score, temperature)
    pieces, ensemble = sign_text_pairs(model.config.hidden_size, limits, text, encoder, head)
    spec = describe_text_pairs(source, "nemotron", text, prompt_of_texts(TEMPLATE), own_tokens)

    def make_reference() -> Reference:
        def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
            return _score(model, tokenizer, text.max_tokens, temperature, pairs)

        return refer_to_texts(ensemble, text, tokenizer_json, fill, score, (LOGITS_NOTE,))

    return Checkpoint(ModelCard(spec, (ensemble,), tokenizer_json), pieces, make_reference)


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
