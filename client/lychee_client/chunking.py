"""How long texts are cut into chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lychee_client._errors import ConfigurationError

DEFAULT_MAX_CHUNKS: Final = 10  # as Cohere's max_chunks_per_doc
# Jina's overlap_tokens, or less: a model of 77 tokens would read everything twice.
DEFAULT_OVERLAP_TOKENS: Final = 80
DEFAULT_OVERLAP_SHARE: Final = 8


@dataclass(frozen=True, slots=True)
class Chunking:
    """Have a document that is longer than the model reads scored in chunks; its best one counts.

    A chunk holds as many tokens as fit, and prefers to end between two words. An image of the document, or several, is
    read again with every chunk. A document that fits is read as it is.

    Attributes:
        overlap_tokens: How many tokens a chunk has in common with the one before, or up to a word more, so that what
            lies at a border is read as a whole once; at most half of a chunk. None takes an eighth of a chunk, at most
            80 tokens.
        max_chunks_per_doc: How many chunks of a document are read; what comes after them does not count, and the result
            is `truncated`. A document costs as much as so many. None sets no limit.

    Raises:
        ConfigurationError: `overlap_tokens` is negative, or `max_chunks_per_doc` below 1.
    """

    overlap_tokens: int | None = None
    max_chunks_per_doc: int | None = DEFAULT_MAX_CHUNKS

    def __post_init__(self) -> None:
        check_count("overlap_tokens", self.overlap_tokens, 0, "None for an eighth of a chunk")
        check_count("max_chunks_per_doc", self.max_chunks_per_doc, 1, "None for no limit")

    def find_overlap(self, room: int) -> int:
        """Return how many tokens of a chunk the next one repeats, where so many fit into one."""
        if self.overlap_tokens is None:
            return min(DEFAULT_OVERLAP_TOKENS, room // DEFAULT_OVERLAP_SHARE)
        return min(self.overlap_tokens, room // 2)


def check_count(name: str, value: int | None, least: int, otherwise: str) -> None:
    """Accept a number that an option sets.

    Raises:
        ConfigurationError: It is no whole number, or below the least.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ConfigurationError(f"{name} is {value!r}; expected a whole number from {least}, or {otherwise}")
