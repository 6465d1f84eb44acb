"""What stands around queries and pages."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Prompts"]


@dataclass(frozen=True)
class Prompts:
    """What stands around queries and pages. Nothing stands around a text that is a document.

    Args:
        query_prefix: What is put before a query.
        query_suffix: What follows a query, the tokens that augment it among it.
        page: What a page becomes; it has the image token once.
        image_token: The token that stands for a part of an image.
    """

    query_prefix: str
    query_suffix: str
    page: str
    image_token: str

    def wrap_query(self, query: str) -> str:
        """Return a query as it is read."""
        return self.query_prefix + query + self.query_suffix
