"""PyLate's layout: a folder of sentence-transformers, whose linear layers have folders of their own.

A query is filled with masks or, with ``do_query_expansion`` false, stays as long as it is; then only its own tokens
count. Texts lose the white space at their ends.

Source: PyLate 1.6.0, pylate/models/colbert.py and Dense.py; sentence-transformers 5.3.0, which it asks for,
models/Transformer.py (tokenize).
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lychee_export.checkpoint.json_files import read_array
from lychee_export.checkpoint.layout import MODULES
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.errors import CheckpointError
from lychee_export.families.colbert.backbones import Backbone
from lychee_export.families.colbert.layout import Loaded
from lychee_export.families.colbert.settings import Settings, read_typed
from lychee_export.families.colbert.stanford import ARCHITECTURE

__all__ = ["Dense", "is_pylate", "load"]

_SETTINGS = "config_sentence_transformers.json"
_TRANSFORMER_SETTINGS = "sentence_bert_config.json"
_DEFAULTS = {
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 32,
    "document_length": 180,
    "do_query_expansion": True,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list(string.punctuation),
    "similarity_fn_name": "MaxSim",
    "prompts": {},
}
"""PyLate's own."""
_TRANSFORMERS = (
    "sentence_transformers.models.Transformer",
    "sentence_transformers.models.Transformer.Transformer",
    "sentence_transformers.base.modules.transformer.Transformer",
)
_DENSES = (
    "pylate.models.Dense.Dense",
    "sentence_transformers.models.Dense",
    "sentence_transformers.models.Dense.Dense",
    "sentence_transformers.base.modules.dense.Dense",
)
_IDENTITY = "torch.nn.modules.linear.Identity"


class Dense(nn.Module):
    """One linear layer, with what is added to it if it is a residual one.

    Args:
        linear: The layer.
        residual: The layer whose output is added. None adds none.
        adds_input: Whether the input is added.
    """

    def __init__(self, linear: nn.Linear, residual: nn.Linear | None, adds_input: bool) -> None:
        super().__init__()
        self.linear, self.residual, self.adds_input = linear, residual, adds_input

    def forward(self, states: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        projected: Tensor = self.linear(states)
        if self.residual is not None:
            projected = projected + self.residual(states)
        return projected + states if self.adds_input else projected


def is_pylate(source: CheckpointSource) -> bool:
    """Say whether a checkpoint has this layout: modules, and settings that only late interaction has."""
    settings = source.read_json(_SETTINGS)
    named = settings.get("model_type") == "ColBERT" or "query_prefix" in settings
    return named and (source.folder / MODULES).is_file()


def load(source: CheckpointSource, backbone: Backbone) -> Loaded:
    """Read settings, model and tokenizer.

    Raises:
        CheckpointError: A file is missing or damaged, or asks for something that is not computed here.
    """
    path = source.folder / _SETTINGS
    found = _read_settings(source, path)
    settings = Settings(
        path=path,
        query_marker=found["query_prefix"],
        document_marker=found["document_prefix"],
        query_tokens=found["query_length"],
        document_tokens=found["document_length"],
        query_key="query_length",
        fills=found["do_query_expansion"],
        attends_to_fill=found["do_query_expansion"] and found["attend_to_expansion_tokens"],
        query_prompt=found["prompts"].get("query") or "",
        document_prompt=found["prompts"].get("document") or "",
    )
    folders = _read_modules(source)
    architectures = source.config.get("architectures") or [backbone.architecture]
    if architectures not in ([backbone.architecture], [ARCHITECTURE]):
        raise CheckpointError(
            f"{source.folder / 'config.json'}: architectures is {architectures}, expected {[backbone.architecture]} "
            "beside PyLate's modules.json; take the files of one checkpoint"
        )
    model: Any = source.load_model(backbone.model_class)
    tokenizer = source.load_tokenizer()
    if tokenizer.mask_token_id is not None:
        tokenizer.pad_token = tokenizer.mask_token  # as PyLate does: a query is filled by padding it
    width, layers = model.config.hidden_size, []
    for folder in folders:
        layers.append(_load_dense(source, folder, width))
        width = layers[-1].linear.out_features
    words = tokenizer.convert_tokens_to_ids(found["skiplist_words"])
    # No model_max_length: PyLate writes its own there, of a text without a marker.
    longest = settings.document_tokens, model.config.max_position_embeddings
    skipped = {word for word in words if word is not None}
    return Loaded(settings, model, nn.Sequential(*layers), width, tokenizer, skipped, longest, strips=True)


def _read_settings(source: CheckpointSource, path: Path) -> dict[str, Any]:
    content = source.read_json(path.name)
    found = read_typed(path, content, _DEFAULTS)
    if found["similarity_fn_name"] != _DEFAULTS["similarity_fn_name"]:
        raise CheckpointError(
            f"{path}: similarity_fn_name is {found['similarity_fn_name']!r}; only 'MaxSim', the sum of the largest "
            "cosines, is supported"
        )
    if content.get("default_prompt_name") is not None:
        raise CheckpointError(
            f"{path}: default_prompt_name is {content['default_prompt_name']!r}, which stands before queries and "
            "documents alike; expected none. Name the two prompts 'query' and 'document', and take it out"
        )
    texts = [*found["skiplist_words"], *(value for value in found["prompts"].values() if value is not None)]
    if not all(isinstance(text, str) for text in texts):
        raise CheckpointError(f"{path}: skiplist_words and prompts hold {texts}, expected texts")
    lowers = source.read_json(_TRANSFORMER_SETTINGS).get("do_lower_case")
    if lowers:
        raise CheckpointError(
            f"{source.folder / _TRANSFORMER_SETTINGS}: do_lower_case is {lowers!r}, expected False; a tokenizer that "
            "writes small letters itself says so in tokenizer.json"
        )
    return found


def _read_modules(source: CheckpointSource) -> list[str]:
    """Return the folders of the linear layers.

    Raises:
        CheckpointError: There are other modules.
    """
    path = source.folder / MODULES
    modules = [(str(module.get("type")), str(module.get("path"))) for module in read_array(path)]
    kinds, folders = [kind for kind, _ in modules], [folder for _, folder in modules]
    known = len(kinds) > 1 and kinds[0] in _TRANSFORMERS and all(kind in _DENSES for kind in kinds[1:])
    if not known or folders[0] or tuple(folders[1:]) != source.layout.parts:
        raise CheckpointError(
            f"{path} is made of {', '.join(kinds) or 'nothing'} in the folders {folders}; expected a Transformer of "
            "sentence-transformers in the checkpoint's own folder and one or more Dense of PyLate in folders below it"
        )
    return folders[1:]


def _load_dense(source: CheckpointSource, folder: str, width: int) -> Dense:
    """Load one linear layer.

    Raises:
        CheckpointError: It has an activation, or its files do not fit each other or what stands before it.
    """
    path = source.folder / folder / "config.json"
    config = source.read_json(f"{folder}/config.json")
    try:
        size = int(config["in_features"]), int(config["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not say in_features and out_features: {config}") from error
    activation = config.get("activation_function")
    if activation != _IDENTITY:
        raise CheckpointError(
            f"{path}: activation_function is {activation!r}, expected {_IDENTITY!r}; other layers are not supported"
        )
    if size[0] != width or size[1] < 1:
        raise CheckpointError(f"{path}: in_features is {size[0]}, and what it is given has {width} numbers")
    adds = bool(config.get("use_residual"))
    with torch.device("meta"):
        linear = nn.Linear(*size, bias=bool(config.get("bias", True)))
        residual = nn.Linear(*size, bias=False) if adds and size[0] != size[1] else None
    dense = Dense(linear, residual, adds and residual is None)
    if source.weights:
        _fill(dense, source.load_part(folder), path)
    return dense


def _fill(dense: Dense, weights: Mapping[str, Tensor], path: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in dense.state_dict().items()}
    seen = {name: tuple(value.shape) for name, value in weights.items()}
    if seen != expected:
        raise CheckpointError(
            f"the weights beside {path} are {seen}, expected {expected}; take both from one checkpoint"
        )
    dense.load_state_dict(dict(weights), assign=True)
