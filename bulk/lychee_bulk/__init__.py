"""Millions of pairs of queries and documents: scores from lychee-rerank servers, on Ray Data."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lychee_bulk.dataset import score

__all__ = ["__version__", "score"]

__version__ = version("lychee-rerank-bulk")


def __getattr__(name: str) -> Any:
    if name != "score":  # Ray is imported when it is first needed
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lychee_bulk.dataset import score

    return score
