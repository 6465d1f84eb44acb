"""How many texts one request of a patient call holds: few enough that others' requests never wait long for it."""

from __future__ import annotations

from typing import Final

__all__ = ["Pace"]

ALLOWED_S: Final = 0.024
MIN_TOKENS: Final = 16
MAX_CHANGE: Final = 2.0


class Pace:
    """Chooses the size of the next request by how long the last one took, waiting for others included.

    A request may take ALLOWED_S. So requests grow on a fast machine, and shrink to a single text while others use the
    server. They also stay that small for a model that needs longer for one text, and on a connection whose round trip
    comes near ALLOWED_S.
    """

    def __init__(self) -> None:
        self._tokens = float(MIN_TOKENS)

    def find_rows(self, length: int) -> int:
        """Return how many texts of so many tokens, padding included, the next request holds; at least 1."""
        return max(1, int(self._tokens / length))

    def note(self, tokens: int, elapsed_s: float) -> None:
        """Learn from an answer.

        Args:
            tokens: How many tokens the request had, padding included.
            elapsed_s: Seconds from sending the request to its answer.
        """
        fitting = tokens * ALLOWED_S / max(elapsed_s, 1e-6)
        bounded = min(max(fitting, self._tokens / MAX_CHANGE), self._tokens * MAX_CHANGE)
        self._tokens = max(bounded, float(MIN_TOKENS))
