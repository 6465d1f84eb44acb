"""Pairs of query and document, and the calls that they become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from lychee_client._errors import InvalidInputError
from lychee_client.foreign_input import to_input
from lychee_client.types import Input

MOST_DOCUMENTS: Final = 1000
"""Of one call: what a gateway takes, unless it was told otherwise."""

Call: TypeAlias = tuple[Input, dict[int, Input]]
"""A query, and its documents by the positions of their pairs."""


def is_one_pair(inputs: Any) -> bool:
    """Say whether these are a query and a document, and not many pairs."""
    if isinstance(inputs, np.ndarray):
        return inputs.size > 0 and inputs.ndim < 2
    return isinstance(inputs, (list, tuple)) and len(inputs) > 0 and not isinstance(inputs[0], (list, tuple))


def group(pairs: Sequence[Any]) -> list[Call]:
    """Return the fewest calls that score the pairs, with at most MOST_DOCUMENTS each.

    Queries are the same if they are equal texts, or one and the same object.

    Raises:
        InvalidInputError: One is no pair, or holds what is neither text nor image.
    """
    groups: dict[object, list[Call]] = {}
    for position, pair in enumerate(pairs):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise InvalidInputError(f"pair {position} is {pair!r:.80}; expected (query, document)", index=position)
        query, document = pair
        calls = groups.setdefault(query if isinstance(query, str) else id(query), [])
        try:
            if not calls:
                calls.append((to_input(query), {}))
            elif len(calls[-1][1]) == MOST_DOCUMENTS:
                calls.append((calls[0][0], {}))
            calls[-1][1][position] = to_input(document)
        except InvalidInputError as error:
            raise refuse(position, error) from error
    return [call for calls in groups.values() for call in calls]


def refuse(position: int, error: Exception) -> InvalidInputError:
    """Return the error of a pair that cannot be scored."""
    return InvalidInputError(f"pair {position} cannot be scored: {error}", index=position)
