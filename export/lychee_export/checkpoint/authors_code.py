"""Checkpoints that name Python code of their authors whose computation transformers has under other names.

The code is never run and need not be there: config.json is said again in transformers' terms, and everything else of it
that changes the computation is refused. Code that is not listed here stays what it is, and the checkpoint is refused.

Source: jinaai/jina-reranker-v2-base-multilingual, config.json, modeling_xlm_roberta.py and embedding.py;
jinaai/xlm-roberta-flash-implementation, configuration_xlm_roberta.py, modeling_xlm_roberta.py, mha.py and rotary.py;
Alibaba-NLP/new-impl, modeling.py (NewEmbeddings, NTKScalingRotaryEmbedding, NewAttention, NewGatedMLP).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lychee_export.errors import CheckpointError

__all__ = ["FLASH_XLM_ROBERTA", "say_in_transformers_terms"]

FLASH_XLM_ROBERTA = "xlm-roberta-flash"
"""The ``model_type`` given to XLM-RoBERTa with jina's names for its weights; theirs is absent or "xlm-roberta"."""

_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
)
"""Whose values by default differ between the authors' code and transformers, so that they have to be said."""
_FLASH_REPOSITORIES = ("", "jinaai/jina-reranker-v2-base-multilingual--", "jinaai/xlm-roberta-flash-implementation--")
_FLASH_CODE = {
    "AutoConfig": {f"{owner}configuration_xlm_roberta.XLMRobertaFlashConfig" for owner in _FLASH_REPOSITORIES},
    "AutoModelForSequenceClassification": {
        f"{owner}modeling_xlm_roberta.XLMRobertaForSequenceClassification" for owner in _FLASH_REPOSITORIES
    },
}
_COLBERT_REPOSITORIES = ("", "jinaai/jina-colbert-v2--", "jinaai/xlm-roberta-flash-implementation--")
_COLBERT_CODE = {
    "AutoConfig": {f"{owner}configuration_xlm_roberta.XLMRobertaFlashConfig" for owner in _COLBERT_REPOSITORIES},
    "AutoModel": {f"{owner}modeling_xlm_roberta.XLMRobertaModel" for owner in _COLBERT_REPOSITORIES},
}
_NEW_CODE = {
    "AutoConfig": {"Alibaba-NLP/new-impl--configuration.NewConfig"},
    "AutoModelForSequenceClassification": {"Alibaba-NLP/new-impl--modeling.NewForSequenceClassification"},
}
_FLASH_PLAIN = {"position_embedding_type": "absolute"}
_COLBERT_PLAIN = {"position_embedding_type": "rotary", "hidden_act": "gelu"}
_COLBERT_UNSET = (
    "emb_pooler",
    "last_layer_subset",
    "lora_adaptations",
    "rotary_emb_dim",
    "rotary_emb_interleaved",
    "rotary_emb_scale_base",
)
"""What changes jina's rotary XLM-RoBERTa where it is set."""
_COLBERT_THETA = 10000.0
"""The base of its rotary positions where config.json does not say it."""
_NEW_PLAIN = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "pack_qkv": True,
    "logn_attention_scale": False,
}
"""The one value that is computed here."""
_SAID_ANEW = ("auto_map", "position_embedding_type", "rope_scaling", "rope_theta", "rotary_emb_base")
_FLASH_CLASS, _NEW_CLASS = "XLMRobertaForSequenceClassification", "NewForSequenceClassification"
_COLBERT_CLASS = "HF_ColBERT"


def say_in_transformers_terms(config: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    """Write the config.json of transformers that says the same; None where there is nothing to say again.

    Args:
        config: The content of config.json.
        place: Its path, named in messages.

    Raises:
        CheckpointError: The code is known, and a setting asks for what is not computed here or is not said.
    """
    for code, name, kinds, write in (
        (_FLASH_CODE, _FLASH_CLASS, (None, "xlm-roberta"), _write_flash),
        (_COLBERT_CODE, _COLBERT_CLASS, (None, "xlm-roberta"), _write_colbert),
        (_NEW_CODE, _NEW_CLASS, ("new",), _write_gte),
    ):
        if _names(config, code) and config.get("architectures") == [name] and config.get("model_type") in kinds:
            written = {**config, **write(config, place)}
            return {key: value for key, value in written.items() if key not in _SAID_ANEW}
    return None


def _names(config: Mapping[str, Any], code: Mapping[str, set[str]]) -> bool:
    named = config.get("auto_map")
    return isinstance(named, Mapping) and all(named.get(entry) in known for entry, known in code.items())


def _write_flash(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    _check(config, place, _FLASH_PLAIN)
    return {"model_type": FLASH_XLM_ROBERTA, "architectures": [f"Flash{_FLASH_CLASS}"]}


def _write_colbert(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Say jina-colbert-v2's XLM-RoBERTa as the model of transformers that has its rotary positions."""
    _check(config, place, _COLBERT_PLAIN)
    found = {name: config[name] for name in _COLBERT_UNSET if config.get(name)}
    if found:
        raise CheckpointError(
            f"{place} sets {found}, which change what this model computes and are not computed here; take the "
            "config.json that was published with the weights"
        )
    theta = float(config.get("rotary_emb_base") or _COLBERT_THETA)
    return {
        "model_type": "jina_embeddings_v3",
        "architectures": [_COLBERT_CLASS],
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }


def _write_gte(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    _check(config, place, _NEW_PLAIN, "rope_theta")
    return {
        "model_type": "gte",
        "architectures": ["GteForSequenceClassification"],
        "rope_parameters": _write_rope(config, place),
    }


def _write_rope(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the rotary positions: theirs divide all frequencies besides raising the base."""
    theta, scaling = float(config["rope_theta"]), config.get("rope_scaling")
    if scaling is None:
        return {"rope_type": "default", "rope_theta": theta}
    factor = float(scaling.get("factor") or 0)
    if scaling.get("type") != "ntk" or scaling.get("mixed_b") is not None or factor < 1:
        raise CheckpointError(
            f"{place}: rope_scaling is {scaling}, expected none or {{'type': 'ntk', 'factor': 1 or more}} without "
            "mixed_b; other rotary positions of this model are not computed here"
        )
    width = config["hidden_size"] // config["num_attention_heads"]
    return {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / width)}


def _check(config: Mapping[str, Any], place: str, plain: Mapping[str, Any], *more: str) -> None:
    unsaid = [name for name in (*_SIZES, *more, *plain) if config.get(name) is None]
    if unsaid:
        raise CheckpointError(
            f"{place} does not say {', '.join(unsaid)}, for which its authors' code has values of its own; take the "
            "config.json that was published with the weights"
        )
    for name, expected in plain.items():
        if config[name] != expected:
            raise CheckpointError(
                f"{place}: {name} is {config[name]!r}, expected {expected!r}; other kinds of this model are not "
                "computed here"
            )
