"""Scores of listed pairs, from a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lychee_client._client import LycheeClient
from lychee_client._errors import ContractError, InvalidInputError
from lychee_client._manifest import ModelIdentity
from lychee_client._types import RerankResponse
from lychee_client.calibration.mapping import Array
from lychee_client.calibration.pairs import Pair, SkippedRow

# A call encodes its query anew, so more is faster; each call has the client's whole timeout, so not too many.
MAX_DOCUMENTS: Final = 32


@dataclass(frozen=True, slots=True)
class PairScores:
    """What a server makes of pairs.

    Attributes:
        pairs: Those that have a score, in the caller's order.
        scores: Relevance scores, float64, (pairs,), in [0, 1].
        logits: The same before the sigmoid, float64, (pairs,).
        skipped: Pairs that could not be scored.
        truncated: Rows whose text is longer than the model reads.
        model: Which model scored; None without pairs.
        instruction: The one in effect; None if the model reads none.
        warnings: What the client had to say about the calls, each once.
    """

    pairs: tuple[Pair, ...]
    scores: Array
    logits: Array
    skipped: tuple[SkippedRow, ...]
    truncated: tuple[int, ...]
    model: ModelIdentity | None
    instruction: str | None
    warnings: tuple[str, ...]

    @property
    def queries(self) -> npt.NDArray[np.int64]:
        """Number of each pair's query, from 0 without gaps, (pairs,)."""
        return number_queries(self.pairs)


def number_queries(pairs: Sequence[Pair]) -> npt.NDArray[np.int64]:
    """Return a number for each pair that is equal for pairs of one query: int64, from 0 without gaps, (pairs,)."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(pair.query_key, len(numbers)) for pair in pairs], np.int64)


def score_pairs(
    client: LycheeClient,
    pairs: Sequence[Pair],
    *,
    instruction: str | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> PairScores:
    """Score every pair once, query by query, in the server's bulk lane.

    A pair that cannot be scored (a damaged image, for example) costs only itself.

    Args:
        client: Of the server.
        pairs: What to score.
        instruction: For all pairs; None for the model's default.
        on_progress: Called with the number of further pairs done.

    Raises:
        ContractError: The server got another model meanwhile.
        LycheeError: The server cannot be reached, or cannot serve a call.
    """
    groups = _group(pairs)
    calls = ((pairs[group[0]].query_input, [pairs[index].document_input for index in group]) for group in groups)
    found: dict[int, tuple[float, float]] = {}
    skipped: list[SkippedRow] = []
    truncated: list[int] = []
    warnings: dict[str, None] = {}
    first: RerankResponse | None = None
    for outcome in client.rerank_many(calls, instruction=instruction, priority="bulk"):
        group, response = groups[outcome.index], outcome.response
        if response is None:
            if outcome.error is not None and not isinstance(outcome.error, InvalidInputError):
                raise outcome.error
            skipped += [SkippedRow(pairs[index].row, f"its query cannot be used: {outcome.error}") for index in group]
        else:
            first = first or response
            if response.model != first.model:
                raise ContractError("the server got another model while the pairs were scored; start again")
            for result in response.results:
                found[group[result.index]] = result.relevance_score, result.logit
                if result.truncated:
                    truncated.append(pairs[group[result.index]].row)
            skipped += [SkippedRow(pairs[group[failed.index]].row, failed.message) for failed in response.errors]
            warnings.update(dict.fromkeys(response.warnings))
        on_progress(len(group))
    order = sorted(found)
    numbers = np.array([found[index] for index in order], float).reshape(-1, 2)
    return PairScores(
        tuple(pairs[index] for index in order),
        numbers[:, 0],
        numbers[:, 1],
        tuple(sorted(skipped, key=lambda skip: skip.row)),
        tuple(sorted(truncated)),
        first.model if first else None,
        first.instruction if first else None,
        tuple(warnings),
    )


def _group(pairs: Sequence[Pair]) -> list[list[int]]:
    """Return positions of pairs with the same query, at most MAX_DOCUMENTS together."""
    groups: dict[object, list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(pair.query_key, []).append(index)
    return [chunk for group in groups.values() for chunk in _chunks(group)]


def _chunks(group: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(group), MAX_DOCUMENTS):
        yield list(group[start : start + MAX_DOCUMENTS])
