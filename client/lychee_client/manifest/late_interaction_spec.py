"""How a model of many vectors for each text (ColBERT) reads texts, and which of the vectors count."""

from __future__ import annotations

from msgspec import Struct

from lychee_client.manifest.fields import Positive, TokenId


class LateInteractionSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What tells queries from documents, and what of them is compared.

    Attributes:
        query_marker: The token that stands second in every query.
        document_marker: The token that stands second in every document.
        query_tokens: The length of every query: a longer one loses its last tokens, a shorter one is filled.
        fill_token_id: The token that fills a query. Its vectors count as those of the query's own tokens do, unless the
            encoder gives zeros for them.
        attends_to_fill: Whether a query's tokens read those that fill it.
        skipped_token_ids: The tokens of a document whose vectors do not count, such as punctuation.
        max_documents: The most documents in one request to the scoring head.
    """

    query_marker: TokenId
    document_marker: TokenId
    query_tokens: Positive
    fill_token_id: TokenId
    attends_to_fill: bool = False
    skipped_token_ids: tuple[TokenId, ...] = ()
    max_documents: Positive
