"""What each layout gives: settings, model and tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from lychee_export.families.colbert.settings import Settings

__all__ = ["Loaded"]


@dataclass(frozen=True)
class Loaded:
    """A checkpoint, before it is split into modules.

    Args:
        settings: How texts are made.
        model: The transformers model.
        projection: What turns a token's state into its vector.
        dim: The length of a vector.
        tokenizer: The tokenizer; queries are filled with its mask token and documents padded with its padding token.
        skipped: The tokens of documents whose vectors do not count.
        longest: The lengths that a document must not exceed.
        strips: Whether a text loses the white space at its ends.
    """

    settings: Settings
    model: Any
    projection: nn.Module
    dim: int
    tokenizer: Any
    skipped: set[int]
    longest: tuple[int, ...]
    strips: bool = False
