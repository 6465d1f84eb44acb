"""Pairs of mixed lengths: texts of 8 to 300 tokens, most of them short, as passages and snippets are."""

from __future__ import annotations

import math
import random
from typing import Final

from lychee_loadtest.compare.documents import Call

from .checkpoint import list_words

__all__ = ["Texts"]

_MEDIAN_TOKENS: Final = 48
_SPREAD: Final = 0.75
"""Of the logarithm of a length."""
_TOKENS: Final = (8, 300)
_QUERY_TOKENS: Final = (4, 12)


class Texts:
    """Draws calls whose lengths a seed says, and whose words another one: equal work, and no pair that a cache knows.

    Args:
        lengths: Seed of the lengths in tokens.
        words: Seed of the words.
    """

    def __init__(self, lengths: str, words: str) -> None:
        self._lengths = random.Random(lengths)
        self._rng = random.Random(words)
        self._words = list_words()

    def call(self, documents: int) -> Call:
        """Return a query with so many texts."""
        query = self._text(self._lengths.randint(*_QUERY_TOKENS))
        return Call(query, tuple(self._text(self._length()) for _ in range(documents)))

    def _length(self) -> int:
        least, most = _TOKENS
        return min(most, max(least, round(self._lengths.lognormvariate(math.log(_MEDIAN_TOKENS), _SPREAD))))

    def _text(self, tokens: int) -> str:
        return " ".join(self._rng.choices(self._words, k=tokens))
