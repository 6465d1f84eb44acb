"""What the tests know of a client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Native = Callable[..., dict[str, Any]]
"""Asks the gateway's own route for a ranking, and returns its answer."""

MODEL = "lychee-mini"
KEY = "key-of-the-tests"


@dataclass(frozen=True)
class Call:
    """What is to be ranked, and where: `url` is the gateway's own, without a path."""

    url: str
    query: str
    texts: list[str]
    top_n: int | None = None

    @property
    def count(self) -> int:
        """How many results are wanted, for clients that have to be told."""
        return self.top_n or len(self.texts)


@dataclass(frozen=True)
class Ranker:
    """A client.

    Attributes:
        name: Of the test.
        rank: Returns positions in `texts` and scores, as the client shows them.
        score: The field of our own answer that the client calls the score.
        sends_key: Whether the client can be given a key.
    """

    name: str
    rank: Callable[[Call], list[tuple[int, float]]]
    score: str = "relevance_score"
    sends_key: bool = True
