"""The layout of ColBERT's authors: ``HF_ColBERT``, one weight file, and settings in ``artifact.metadata``.

Source: colbert-ai 0.2.22, colbert/modeling/ (colbert.py, hf_colbert.py, tokenization) and infra/config/settings.py.
"""

from __future__ import annotations

import string
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lychee_export.checkpoint.json_files import read_object
from lychee_export.checkpoint.layout import MODULES
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.errors import CheckpointError
from lychee_export.families.colbert.backbones import Backbone
from lychee_export.families.colbert.layout import Loaded
from lychee_export.families.colbert.settings import Settings, read_typed

__all__ = ["ARCHITECTURE", "is_stanford", "load"]

ARCHITECTURE = "HF_ColBERT"
_SETTINGS = "artifact.metadata"
_DEFAULTS = {
    "dim": 128,
    "query_maxlen": 32,
    "doc_maxlen": 220,
    "mask_punctuation": True,
    "attend_to_mask_tokens": False,
    "query_token_id": "[unused0]",
    "doc_token_id": "[unused1]",
    "similarity": "cosine",
}
"""The authors' own."""


def is_stanford(source: CheckpointSource) -> bool:
    """Say whether a ColBERT checkpoint has this layout; one that has PyLate's files as well is read by this one."""
    return (source.folder / _SETTINGS).is_file() or not (source.folder / MODULES).is_file()


def load(source: CheckpointSource, backbone: Backbone) -> Loaded:
    """Read settings, model and tokenizer.

    Raises:
        CheckpointError: A file is missing or damaged, or asks for something that is not computed here.
    """
    path = source.folder / _SETTINGS
    content = read_object(path)
    if not content:
        raise CheckpointError(
            f"{path} is missing or empty; it says how long queries and documents are and which tokens mark them. "
            "Take it from the checkpoint's authors"
        )
    found = read_typed(path, content, _DEFAULTS)
    if found["similarity"] != "cosine":
        raise CheckpointError(f"{path}: similarity is {found['similarity']!r}; only 'cosine' is supported")
    if found["dim"] < 1:
        raise CheckpointError(f"{path}: dim is {found['dim']}; expected at least 1")
    settings = Settings(
        path=path,
        query_marker=found["query_token_id"],
        document_marker=found["doc_token_id"],
        query_tokens=found["query_maxlen"],
        document_tokens=found["doc_maxlen"],
        query_key="query_maxlen",
        attends_to_fill=found["attend_to_mask_tokens"],
    )
    model: Any = source.load_model(_make_class(backbone, found["dim"]))
    tokenizer = source.load_tokenizer()
    skipped = {tokenizer.pad_token_id}
    if found["mask_punctuation"]:
        skipped |= {tokenizer.encode(symbol, add_special_tokens=False)[0] for symbol in string.punctuation}
    longest = settings.document_tokens, model.config.max_position_embeddings, tokenizer.model_max_length
    return Loaded(settings, model.base_model, model.linear, found["dim"], tokenizer, skipped, longest)


def _make_class(backbone: Backbone, dim: int) -> type[PreTrainedModel]:
    """Make the authors' class: the model and the linear layer, under the names that their files have."""

    def build(self: Any, config: Any) -> None:
        backbone.base_class.__init__(self, config)
        setattr(self, self.base_model_prefix, backbone.model_class(config))
        self.linear = nn.Linear(config.hidden_size, dim, bias=False)
        self.post_init()

    return type(ARCHITECTURE, (backbone.base_class,), {"__init__": build})
