"""transformers as the judge of Llama Nemotron rerankers: nothing here comes from the exporter or the client.

The language model is transformers' ``LlamaModel``, given a mask that hides padding and nothing else; prompts are padded
on the left, as the model cards do it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaModel

TRAINED_TOKENS = 8192


@dataclass(frozen=True)
class NemotronTextModel:
    """A text reranker.

    Args:
        language_model: In float32.
        weight: Of the head, float32, (1, hidden_size).
        tokenizer: Of the checkpoint.
        temperature: What logits are divided by.
        max_tokens: The longest prompt.
    """

    language_model: Any
    weight: Tensor
    tokenizer: Any
    temperature: float
    max_tokens: int

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
        """Tokenize prompts, padded on the left to the longest; too long a one loses its end."""
        prompts = [f"question:{query} \n \n passage:{document}" for query, document in pairs]
        options = {"padding": True, "truncation": True, "max_length": self.max_tokens}
        return dict(self.tokenizer(prompts, return_tensors="pt", **options))

    @torch.no_grad()
    def compute_logits(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Score pairs: float32, (num_pairs,)."""
        inputs = self.tokenize(pairs)
        embeds = self.language_model.embed_tokens(inputs["input_ids"])
        return read_both_ways(self.language_model, embeds, inputs["attention_mask"]) @ self.weight[0] / self.temperature

    def score(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Return the sigmoid of the logits: float32, (num_pairs,)."""
        return torch.sigmoid(self.compute_logits(pairs))


def read_both_ways(language_model: Any, embeds: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean of the states of what is no padding: float32, (batch_size, hidden_size)."""
    hidden_from = (attention_mask == 0)[:, None, None, :].expand(-1, 1, attention_mask.shape[1], -1)
    mask = torch.zeros(hidden_from.shape).masked_fill(hidden_from, torch.finfo(torch.float32).min)
    states = language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
    rows = [row[kept.bool()].mean(0) for row, kept in zip(states, attention_mask, strict=True)]
    return torch.stack(rows)


def load_nemotron_text_model(folder: Path, max_tokens: int | None = None) -> NemotronTextModel:
    """Load a checkpoint, to read so many tokens or what it was trained with if that is less."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    prefix = "model."
    model = load_llama(config, {name[len(prefix) :]: value for name, value in weights.items() if prefix in name})
    tokenizer = AutoTokenizer.from_pretrained(folder, config=model.config, padding_side="left")
    longest = min(config["max_position_embeddings"], TRAINED_TOKENS, max_tokens or TRAINED_TOKENS)
    return NemotronTextModel(model, weights["score.weight"], tokenizer, config["temperature"], longest)


def load_llama(config: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """Make transformers' Llama of a part of config.json and weights by its own names."""
    foreign = {"model_type", "architectures", "auto_map", "rope_scaling", "rope_theta"}
    kept = {name: value for name, value in config.items() if name not in foreign}
    kept["rope_parameters"] = config["rope_scaling"] | {"rope_theta": config["rope_theta"]}
    model = LlamaModel(LlamaConfig(**kept, attn_implementation="eager")).eval()
    model.load_state_dict(weights)
    return model
