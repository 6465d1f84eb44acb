"""How a model of many vectors for each text or page (ColBERT, ColQwen2) reads them, and which of the vectors count."""

from __future__ import annotations

from msgspec import Struct

from lychee_client.manifest.fields import Positive, TokenId


class PageSpec(Struct, frozen=True):
    """How an image is read: as a page, in a prompt of its own.

    Attributes:
        prompt: The text that a page becomes; special tokens are written out.
        image_token: The token that `prompt` holds once, and that is repeated once per token of the image.
    """

    prompt: str
    image_token: str

    def __post_init__(self) -> None:
        if not self.image_token or self.prompt.count(self.image_token) != 1:
            raise ValueError(
                f"late_interaction.page.prompt is {self.prompt!r}; expected late_interaction.page.image_token "
                f"({self.image_token!r}) in it, once"
            )


class LateInteractionSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What tells queries from documents, and what of them is compared.

    Attributes:
        query_marker: The token that stands second in every query; None where a prefix and a suffix do without.
        document_marker: The token that stands second in every document; None where `query_marker` is.
        query_tokens: The most tokens of a query: a longer one loses its last tokens. With `fill_token_id` every query
            has so many.
        fill_token_id: The token that fills a query. Its vectors count as those of the query's own tokens do. None
            leaves a query as long as it is.
        attends_to_fill: Whether a query's tokens read those that fill it.
        skipped_token_ids: The tokens of a document whose vectors do not count, such as punctuation.
        query_suffix: The text that follows every query, that was cut or not; special tokens are written out.
        page: How an image is read as a document; None for a model that reads texts alone.
        max_documents: The most documents in one request to the scoring head.
    """

    query_marker: TokenId | None = None
    document_marker: TokenId | None = None
    query_tokens: Positive
    fill_token_id: TokenId | None = None
    attends_to_fill: bool = False
    skipped_token_ids: tuple[TokenId, ...] = ()
    query_suffix: str = ""
    page: PageSpec | None = None
    max_documents: Positive
