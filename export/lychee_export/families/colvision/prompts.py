"""What stands around queries, texts and pages."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AUGMENTATION", "Prompts"]

AUGMENTATION = 10
"""So many padding tokens follow a query: the models learned to put there what they make of it."""


@dataclass(frozen=True)
class Prompts:
    """What stands around queries, texts and pages.

    Args:
        query_prefix: What is put before a query.
        query_suffix: What follows a query, the tokens that augment it among it.
        document_prefix: What is put before a text that is a document.
        page: What a page becomes; it has the image token once.
        image_token: The token that stands for a part of an image.
    """

    query_prefix: str
    query_suffix: str
    document_prefix: str
    page: str
    image_token: str
