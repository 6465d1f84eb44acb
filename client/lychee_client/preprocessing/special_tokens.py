"""A tokenizer's special tokens, which no text of a caller may become."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class SpecialTokens:
    """The special tokens of a tokenizer, and others that a prompt writes out.

    Args:
        tokenizer: The tokenizer.
        prompt: The texts of the model's prompt: an added token in it counts as special.

    Attributes:
        by_id: Their texts, by token id.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: str) -> None:
        added = tokenizer.get_added_tokens_decoder()
        self.by_id: Final = {
            token_id: token.content for token_id, token in added.items() if token.special or token.content in prompt
        }
        longest_first = sorted(filter(str.strip, self.by_id.values()), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def break_up(self, text: str) -> str:
        """Break up special tokens in a text, so that they are read as the characters that they are made of.

        A space follows the first character of each: "<|im_end|>" is read as "< |im_end|>".
        """
        if self._pattern is None:
            return text
        text = self._pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        while self._pattern.search(text):  # one that began within another, or has one character only
            text = self._pattern.sub("", text)
        return text
