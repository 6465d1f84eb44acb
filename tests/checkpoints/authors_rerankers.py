"""What the code of jina-reranker-v2, jina-colbert-v2 and gte-multilingual-reranker computes: the judge of exports.

Both read weights by their published names. Nothing here comes from the exporter, or from transformers' classes of the
same models.

Source: jinaai/jina-reranker-v2-base-multilingual, embedding.py, modeling_xlm_roberta.py and the conversion of weights;
jinaai/xlm-roberta-flash-implementation, modeling_xlm_roberta.py, mha.py and rotary.py; Alibaba-NLP/new-impl,
modeling.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

_CODE = "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class AuthorsModel:
    """A reranker, called as transformers' models are.

    Args:
        config: The content of config.json, as attributes.
        weights: In float32, by name.
        compute: Computes the logits, or the tokens' states, of ids and mask.
    """

    config: Any
    weights: dict[str, Tensor]
    compute: Callable[[AuthorsModel, Tensor, Tensor], Tensor]

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.compute(self, input_ids, attention_mask))

    def linear(self, name: str, states: Tensor) -> Tensor:
        """Apply a matrix and its bias, if there is one."""
        return functional.linear(states, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, states: Tensor) -> Tensor:
        """Normalise the last axis."""
        scale, shift = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(states, scale.shape, scale, shift, self.config.layer_norm_eps)

    def heads(self, states: Tensor) -> Tensor:
        """Split (batch_size, sequence_length, width) into (batch_size, heads, sequence_length, width / heads)."""
        return states.unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2)


def load_authors_model(folder: Path) -> AuthorsModel | None:
    """Load a checkpoint that brings one of the two codes; None for any other."""
    config = json.loads((folder / "config.json").read_text())
    code = str((config.get("auto_map") or {}).get(_CODE, "")).rpartition(".")[2]
    compute = {"XLMRobertaForSequenceClassification": _compute_flash, "NewForSequenceClassification": _compute_new}
    if code not in compute:
        return None
    return read_authors_model(folder, compute[code])


def read_authors_model(folder: Path, compute: Callable[[AuthorsModel, Tensor, Tensor], Tensor]) -> AuthorsModel:
    """Read configuration and weights of a checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    return AuthorsModel(SimpleNamespace(**config), weights, compute)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    products = query @ key.mT / query.shape[-1] ** 0.5
    shares = products.masked_fill(mask[:, None, None, :] == 0, -torch.inf).softmax(-1)
    return (shares @ value).transpose(1, 2).flatten(-2)


def _compute_flash(model: AuthorsModel, ids: Tensor, mask: Tensor) -> Tensor:
    pooled = model.linear("classifier.dense", compute_flash_states(model, ids, mask)[:, 0]).tanh()
    return model.linear("classifier.out_proj", pooled)


def compute_flash_states(model: AuthorsModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Compute the states of XLM-RoBERTa's tokens, (batch_size, sequence_length, width): norms after the sums.

    Learned positions count tokens from the padding's id on; rotary ones turn queries and keys by their places.
    """
    states = model.weights["roberta.embeddings.word_embeddings.weight"][ids]
    turns = None
    if model.config.position_embedding_type == "absolute":
        padding = model.config.pad_token_id
        places = (ids != padding).cumsum(1) * (ids != padding) + padding
        states = states + model.weights["roberta.embeddings.position_embeddings.weight"][places]
    else:
        rotary = {"rope_theta": getattr(model.config, "rotary_emb_base", 10000.0), "rope_scaling": None}
        turns = _turn_by_place(SimpleNamespace(**vars(model.config) | rotary), ids.shape[1])
    states = model.norm("roberta.emb_ln", states + model.weights["roberta.embeddings.token_type_embeddings.weight"][0])
    for index in range(model.config.num_hidden_layers):
        layer = f"roberta.encoder.layers.{index}"
        fused = model.linear(f"{layer}.mixer.Wqkv", states)
        width = fused.shape[-1] // 3
        query, key, value = (model.heads(fused[..., start : start + width]) for start in (0, width, 2 * width))
        if turns is not None:
            query, key = _turn(query, turns), _turn(key, turns)
        mixed = model.linear(f"{layer}.mixer.out_proj", _attend(query, key, value, mask))
        states = model.norm(f"{layer}.norm1", mixed + states)
        wide = functional.gelu(model.linear(f"{layer}.mlp.fc1", states))
        states = model.norm(f"{layer}.norm2", model.linear(f"{layer}.mlp.fc2", wide) + states)
    return states


def _compute_new(model: AuthorsModel, ids: Tensor, mask: Tensor) -> Tensor:
    """GTE: queries and keys are turned by their places; gated layers; norms after the sums; BERT's pooler."""
    embeddings = "new.embeddings"
    states = model.weights[f"{embeddings}.word_embeddings.weight"][ids]
    states = states + model.weights[f"{embeddings}.token_type_embeddings.weight"][0]
    states = model.norm(f"{embeddings}.LayerNorm", states)
    turns = _turn_by_place(model.config, ids.shape[1])
    for index in range(model.config.num_hidden_layers):
        layer = f"new.encoder.layer.{index}"
        query, key, value = (
            model.heads(part) for part in model.linear(f"{layer}.attention.qkv_proj", states).chunk(3, -1)
        )
        mixed = _attend(_turn(query, turns), _turn(key, turns), value, mask)
        states = model.norm(f"{layer}.attn_ln", states + model.linear(f"{layer}.attention.o_proj", mixed))
        raised, gate = model.linear(f"{layer}.mlp.up_gate_proj", states).chunk(2, -1)
        gated = model.linear(f"{layer}.mlp.down_proj", functional.gelu(gate) * raised)
        states = model.norm(f"{layer}.mlp_ln", states + gated)
    return model.linear("classifier", model.linear("new.pooler.dense", states[:, 0]).tanh())


def _turn_by_place(config: Any, length: int) -> Tensor:
    """Return the turns as numbers on the unit circle: complex128, (sequence_length, width of a head / 2)."""
    width = config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
    scaling = config.rope_scaling
    if scaling is None:
        frequencies = float(config.rope_theta) ** -exponents
    else:  # a larger base, and every frequency a little lower: kexue.fm/archives/9706, formula 6
        factor = scaling["factor"]
        frequencies = (config.rope_theta * factor) ** -exponents / factor ** (2 / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.polar(torch.ones_like(angles), angles)


def _turn(states: Tensor, turns: Tensor) -> Tensor:
    """Turn the numbers whose real parts are the first half of a head and whose imaginary parts are the second."""
    first, second = states.double().chunk(2, -1)
    turned = torch.complex(first, second) * turns
    return torch.cat([turned.real, turned.imag], -1).float()
