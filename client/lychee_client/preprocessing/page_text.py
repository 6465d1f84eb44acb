"""Texts for late interaction with pages: queries with a suffix, texts as they are, and the prompt around an image."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lychee_client._errors import ContractError, InvalidInputError
from lychee_client.manifest.late_interaction_spec import PageInteractionSpec
from lychee_client.manifest.manifest import TextSpec
from lychee_client.preprocessing.special_tokens import SpecialTokens
from lychee_client.preprocessing.text import TextProcessor, TokenizedText, find_bucket


class PageTextProcessor(TextProcessor):
    """Turns texts and pages into `input_ids` and `attention_mask`. All their tokens' vectors count.

    Args:
        tokenizer_json: The content of a `tokenizers` file.
        spec: The manifest's specification of texts.
        late: The manifest's specification of late interaction.

    Raises:
        ContractError: The tokenizer cannot be read, or does not fit the manifest.
    """

    def __init__(self, tokenizer_json: str, spec: TextSpec, late: PageInteractionSpec) -> None:
        super().__init__(tokenizer_json, spec)
        written = (spec.query_prefix or "", late.query_suffix, spec.document_prefix or "", late.page)
        self._special = SpecialTokens(self._tokenizer, "".join(written))
        self._suffix = self._encode(late.query_suffix)
        self._most = late.query_tokens - len(self._suffix)
        page = self._encode(late.page)
        token = self._tokenizer.token_to_id(late.image_token)
        if token is None or page.count(token) != 1:
            raise ContractError(
                f"the server's tokenizer has no token {late.image_token!r}, which stands for an image in the "
                "manifest's late_interaction.page; export the model again"
            )
        if self._most < 1:
            raise ContractError(
                f"what follows every query takes {len(self._suffix)} tokens, and late_interaction.query_tokens is "
                f"{late.query_tokens}; export the model again with a larger --max-tokens"
            )
        place = page.index(token)
        self._page = page[:place], token, page[place + 1 :]

    def tokenize_query(self, text: str, prefix: str | None = None) -> TokenizedText:
        """See TextProcessor. A query that is too long loses its last tokens, not its suffix."""
        plain = super().tokenize_query(self._special.break_up(text), prefix)
        ids = array("i", plain.ids[: self._most]) + self._suffix
        return TokenizedText(ids, plain.truncated or len(plain.ids) > self._most, find_bucket(len(ids), self._spec))

    def tokenize_documents(self, texts: Sequence[str]) -> list[TokenizedText]:
        """See TextProcessor."""
        return super().tokenize_documents([self._special.break_up(text) for text in texts])

    def tokenize_page(self, image_tokens: int) -> TokenizedText:
        """Return a page's prompt.

        Args:
            image_tokens: How many tokens stand for its image.

        Raises:
            InvalidInputError: It is longer than what the model reads.
        """
        before, token, after = self._page
        ids = before + array("i", [token]) * image_tokens + after
        if len(ids) > self._spec.max_tokens:
            raise InvalidInputError(
                f"the image takes {len(ids)} tokens with the page's prompt, the model reads {self._spec.max_tokens}; "
                "lower max_img_size, or crop a long image"
            )
        return TokenizedText(ids, False, find_bucket(len(ids), self._spec))

    def find_counted(self, text: TokenizedText) -> npt.NDArray[np.bool_]:
        """Return which vectors of a text or page count, (tokens,): all."""
        return np.ones(len(text.ids), bool)

    def find_tokens(self, text: str) -> list[int]:
        """See TextProcessor."""
        return super().find_tokens(self._special.break_up(text))

    def find_query_surplus(self, text: str, prefix: str | None = None) -> int:
        """See TextProcessor."""
        return super().find_query_surplus(self._special.break_up(text), prefix) + self._longest - self._most

    def find_document_surplus(self, text: str) -> int:
        """See TextProcessor."""
        return super().find_document_surplus(self._special.break_up(text))

    def _encode(self, text: str) -> array[int]:
        return array("i", self._tokenizer.encode(text, add_special_tokens=False).ids)
