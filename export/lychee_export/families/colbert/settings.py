"""What a checkpoint's settings say, in whichever file they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lychee_export.errors import CheckpointError

__all__ = ["LEAST_TOKENS", "Settings", "read_typed"]

LEAST_TOKENS = 4
"""Of a query: the first, the marker, one of its own and the last."""


@dataclass(frozen=True)
class Settings:
    """How texts are made and which vectors count.

    Args:
        path: The file, named in messages.
        query_marker: The token that marks a query.
        document_marker: The token that marks a document.
        query_tokens: The length of the longest query in tokens.
        document_tokens: The length of the longest document in tokens.
        query_key: What the file calls the length of the longest query.
        fills: Whether a query is filled up to its full length with masks, whose vectors count.
        attends_to_fill: Whether a query's tokens read the masks that fill it.
        query_prompt: What is put before a query.
        document_prompt: What is put before a document.
    """

    path: Path
    query_marker: str
    document_marker: str
    query_tokens: int
    document_tokens: int
    query_key: str
    fills: bool = True
    attends_to_fill: bool = False
    query_prompt: str = ""
    document_prompt: str = ""

    def __post_init__(self) -> None:
        if not self.query_marker or not self.document_marker or self.query_marker == self.document_marker:
            raise CheckpointError(
                f"{self.path}: queries are marked by {self.query_marker!r} and documents by {self.document_marker!r}; "
                "expected two tokens that differ: other models are not supported"
            )
        if self.query_tokens < LEAST_TOKENS:
            raise CheckpointError(
                f"{self.path}: {self.query_key} is {self.query_tokens}; expected at least {LEAST_TOKENS}"
            )


def read_typed(path: Path, content: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Read values that have the types of their defaults.

    Args:
        path: The file, named in messages.
        content: What it holds; null is a value that is not there.
        defaults: What holds where it says nothing.

    Raises:
        CheckpointError: A value has another type.
    """
    found = {}
    for name, default in defaults.items():
        value = default if content.get(name) is None else content[name]
        if type(value) is not type(default):
            raise CheckpointError(f"{path}: {name} is {value!r}, expected a {type(default).__name__}")
        found[name] = value
    return found
