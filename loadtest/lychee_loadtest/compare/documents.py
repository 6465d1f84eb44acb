"""The queries, texts and photos that every contestant gets."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from lychee_server.examples import read_catalogue

from lychee_loadtest.payloads import fresh_photos

__all__ = ["Call", "Document", "Documents"]

Document: TypeAlias = str | bytes
"""A text, or the bytes of a JPEG file."""

_QUERY_WORDS: Final = (2, 4)
_TEXT_WORDS: Final = (5, 14)
"""Fewest and most words, as titles and captions have them: 8 to 32 tokens of the checkpoint here."""


@dataclass(frozen=True)
class Call:
    """One query and its documents, all texts or all photos."""

    query: str
    documents: tuple[Document, ...]


class Documents:
    """Draws documents that come once: equal seeds draw the same ones, different seeds have none in common.

    Args:
        *seed: Any numbers.
    """

    def __init__(self, *seed: int) -> None:
        number = 0
        for part in seed:
            number = 1000 * number + part + 1
        self._rng = random.Random(number)
        self._words = _read_words()
        self._photos: Iterator[bytes] = fresh_photos(number)

    def query(self) -> str:
        """Return a query."""
        return self._sentence(_QUERY_WORDS)

    def call(self, kind: str, documents: int) -> Call:
        """Return a query with so many "texts" or "photos"."""
        if kind == "texts":
            return Call(self.query(), tuple(self._sentence(_TEXT_WORDS) for _ in range(documents)))
        return Call(self.query(), tuple(itertools.islice(self._photos, documents)))

    def _sentence(self, words: tuple[int, int]) -> str:
        return " ".join(self._rng.choices(self._words, k=self._rng.randint(*words)))


def _read_words() -> list[str]:
    """Return the English words of the example catalogue."""
    texts = [text for document in read_catalogue().documents if (text := document.text) and text.isascii()]
    return sorted({word for text in texts for word in re.findall("[a-z]+", text.lower())})
