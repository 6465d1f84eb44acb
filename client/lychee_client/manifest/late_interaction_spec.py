"""How a model of many vectors for each text or page (ColBERT, ColQwen2) reads them, and which of the vectors count."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from lychee_client.manifest.fields import Positive, TokenId


class LateInteractionSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="marks"):
    """What tells queries from documents where tokens mark them, and what of them is compared (ColBERT).

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


class PageInteractionSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="pages"):
    """What stands around queries and images where images are read as pages (ColQwen2, ColPali). All vectors count.

    Attributes:
        query_tokens: The most tokens of a query; a longer one loses its last tokens, not its suffix.
        query_suffix: The text that follows every query; special tokens are written out.
        page: The text that an image becomes; special tokens are written out.
        image_token: The token that `page` holds once, and that is repeated once per token of the image.
        max_documents: The most documents in one request to the scoring head.
    """

    query_tokens: Positive
    query_suffix: str
    page: str
    image_token: str
    max_documents: Positive

    def __post_init__(self) -> None:
        if not self.image_token or self.page.count(self.image_token) != 1:
            raise ValueError(
                f"late_interaction.page is {self.page!r}; expected late_interaction.image_token ({self.image_token!r}) "
                "in it, once"
            )


AnyLateInteractionSpec: TypeAlias = LateInteractionSpec | PageInteractionSpec
