"""Texts for late interaction: marked as query or document, queries filled to one length."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lychee_client._errors import ContractError
from lychee_client.manifest.late_interaction_spec import LateInteractionSpec
from lychee_client.manifest.manifest import TextSpec
from lychee_client.preprocessing.text import TextProcessor, TokenizedText, find_bucket

_FIRST = 1  # tokens before the marker


class MarkedTextProcessor(TextProcessor):
    """Turns texts into `input_ids` and `attention_mask`, and says which of their tokens count.

    Args:
        tokenizer_json: The content of a `tokenizers` file.
        spec: The manifest's specification of texts.
        late: The manifest's specification of late interaction.

    Raises:
        ContractError: The tokenizer cannot be read.
    """

    def __init__(self, tokenizer_json: str, spec: TextSpec, late: LateInteractionSpec) -> None:
        super().__init__(tokenizer_json, spec, reserved=1)
        self._late = late
        known = max(self._tokenizer.get_vocab_size(), late.query_marker + 1, late.document_marker + 1)
        self._counts = np.ones(known, bool)
        if late.skipped_token_ids:
            if max(late.skipped_token_ids) >= known:
                raise ContractError(
                    f"late_interaction.skipped_token_ids has {max(late.skipped_token_ids)}, the tokenizer has {known} "
                    "tokens; export the model again"
                )
            self._counts[list(late.skipped_token_ids)] = False

    def tokenize_query(self, text: str, prefix: str | None = None) -> TokenizedText:
        """See TextProcessor. A query that is too long loses its last tokens; one that is short is filled."""
        late = self._late
        plain = super().tokenize_query(text, prefix)
        ids = [late.fill_token_id if token == self._spec.pad_token_id else token for token in plain.ids]
        most = late.query_tokens - 1
        truncated = plain.truncated or len(ids) > most
        if len(ids) > most:
            ids = [*ids[: most - 1], ids[-1]]
        marked = self._mark(ids, late.query_marker)
        read = len(marked)
        marked.extend([late.fill_token_id] * (late.query_tokens - read))
        attended = None if late.attends_to_fill else read
        return TokenizedText(marked, truncated, find_bucket(len(marked), self._spec), attended)

    def tokenize_documents(self, texts: Sequence[str]) -> list[TokenizedText]:
        """See TextProcessor."""
        marked = [
            replace(text, ids=self._mark(text.ids, self._late.document_marker))
            for text in super().tokenize_documents(texts)
        ]
        return [replace(text, bucket=find_bucket(len(text.ids), self._spec)) for text in marked]

    def find_query_surplus(self, text: str, prefix: str | None = None) -> int:
        """See TextProcessor."""
        return super().find_query_surplus(text, prefix) + self._spec.max_tokens - self._late.query_tokens

    def is_query(self, text: TokenizedText) -> bool:
        """Say whether a text is a query."""
        return text.ids[_FIRST] == self._late.query_marker

    def find_counted(self, text: TokenizedText) -> npt.NDArray[np.bool_]:
        """Return which vectors of a text count, (tokens,): all of a query, of a document those that are not skipped."""
        if self.is_query(text):
            return np.ones(len(text.ids), bool)
        counted: npt.NDArray[np.bool_] = self._counts[np.asarray(text.ids)]
        return counted

    @staticmethod
    def _mark(ids: Sequence[int], marker: int) -> array[int]:
        return array("i", [*ids[:_FIRST], marker, *ids[_FIRST:]])
