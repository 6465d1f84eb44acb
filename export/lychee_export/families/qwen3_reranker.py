"""Qwen3-Reranker: a language model that answers "yes" or "no" to a query and a text.

One row is one pair, in the prompt of the model card. The score is the softmax over the two answers' logits at the last
token, which is the sigmoid of their difference; a conversion to ``Qwen3ForSequenceClassification`` has that difference
as its only label, or the two as labels.

Source: transformers 5.23.0, models/qwen3; ``prompts/qwen3_reranker.json`` has the source of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from msgspec import structs
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families.decoder import Decoder, take_last
from lychee_export.families.family import Checkpoint, Family, ModelCard, Reference
from lychee_export.families.heads import LabelHead, find_label_ids, find_positive_label, make_score_head
from lychee_export.families.rotary import CHANGING_ROPE_TYPES
from lychee_export.families.template import Template, find_template, templates
from lychee_export.families.text_format import plain_tokenizer
from lychee_export.families.text_pairs import describe_text_pairs, format_pairs, refer_to_texts, sign_text_pairs

__all__ = ["FAMILY", "TextEncoder", "load"]

_CLASSES: dict[str, type[PreTrainedModel]] = {
    "Qwen3ForCausalLM": Qwen3ForCausalLM,
    "Qwen3ForSequenceClassification": Qwen3ForSequenceClassification,
}
"""By ``architectures[0]`` in config.json."""


class TextEncoder(nn.Module):
    """Read a prompt.

    Args:
        model: The ``Qwen3Model``; its weights are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = Decoder(model, causal=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the last real token's state after the final norm.

        Args:
            input_ids: int64, (batch_size, sequence_length), padded left or right.
            attention_mask: int64, (batch_size, sequence_length), 1 for a token and 0 for padding.

        Returns:
            float32, (batch_size, hidden_size).
        """
        states = self.decoder(self.decoder.embed_tokens(input_ids), attention_mask)
        return take_last(states, attention_mask).float()


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a Qwen3-Reranker.

    Raises:
        CheckpointError: The checkpoint is damaged, or nothing says that it is a Qwen3-Reranker, or it asks for
            something that is not computed here, or the limits leave no room.
    """
    template = find_template(source)
    model_class = _CLASSES[source.config["architectures"][0]]
    tokenizer = source.load_tokenizer()
    label_ids = None
    if model_class is Qwen3ForCausalLM and template.labels is not None:
        label_ids = find_label_ids(tokenizer, template.labels)
    model: Any = source.load_model(model_class)
    config = model.config
    _check_config(source, config)
    plain = plain_tokenizer(source, tokenizer, config.vocab_size)
    tokenizer_json = plain.to_str()
    own_tokens = min(config.max_position_embeddings, tokenizer.model_max_length, template.max_tokens or 2**31)
    text = format_pairs(source, limits, config.vocab_size, tokenizer.pad_token_id, own_tokens)
    _check_room(template, len(plain.encode(template.fill("", "")).ids), text.max_tokens)
    head: nn.Module
    if label_ids is None:
        head = make_score_head(model.score, template.logit_bias, config)
    else:
        head = LabelHead(model.lm_head.weight, *label_ids)
    pieces, ensemble = sign_text_pairs(config.hidden_size, limits, text, TextEncoder(model.model), head)
    suffix = plain.encode(template.suffix, add_special_tokens=False).ids
    prompt = structs.replace(template.prompt, suffix_token_ids=tuple(suffix))
    spec = describe_text_pairs(source, FAMILY.name, text, prompt, own_tokens, template.instruction)

    def make_reference() -> Reference:
        def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
            return [_score(model, tokenizer, template.fill(*pair), label_ids) for pair in pairs]

        return refer_to_texts(ensemble, text, tokenizer_json, template.fill, score)

    return Checkpoint(ModelCard(spec, (ensemble,), tokenizer_json), pieces, make_reference)


def _check_config(source: CheckpointSource, config: Any) -> None:
    """Refuse what the graph does not compute.

    Raises:
        CheckpointError: There is something of it.
    """
    place = source.folder / "config.json"
    layers = set(config.layer_types or ())
    if layers - {"full_attention"}:
        raise CheckpointError(f"{place}: the layers are {sorted(layers)}, expected full_attention alone")
    rope_type = (config.rope_parameters or {}).get("rope_type")
    if rope_type in CHANGING_ROPE_TYPES:
        raise CheckpointError(f"{place} asks for rotary positions of type {rope_type!r}, which are not supported")


def _check_room(template: Template, prompt_tokens: int, max_tokens: int) -> None:
    """Refuse limits that the prompt alone takes most of.

    Raises:
        CheckpointError: It does.
    """
    if 2 * prompt_tokens > max_tokens:
        raise CheckpointError(
            f"the prompt of {template.checkpoints[0]} takes {prompt_tokens} tokens without query and document, and the "
            f"longest sequence is to be {max_tokens}; expected at least {2 * prompt_tokens}. Choose a larger "
            "--max-tokens"
        )


@torch.no_grad()
def _score(model: Any, tokenizer: Any, prompt: str, label_ids: tuple[int, int] | None) -> float:
    """Score a prompt with transformers alone."""
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    logits = model(**inputs).logits
    if label_ids is not None:
        positive, negative = (logits[0, -1, index] for index in label_ids)
    elif logits.shape[1] == 1:
        positive, negative = logits[0, 0], torch.zeros(())
    else:
        label = find_positive_label(model.config)
        positive, negative = logits[0, label], logits[0, 1 - label]
    return float((positive - negative).double().sigmoid())


FAMILY = Family(
    name="qwen3_reranker",
    model_types=("qwen3",),
    load=load,
    checkpoints=tuple(
        name
        for template in templates().values()
        if "Qwen3ForCausalLM" in template.architectures
        for name in template.checkpoints
    ),
    has_templates=True,
)
