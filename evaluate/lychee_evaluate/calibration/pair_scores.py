"""Scores of listed pairs, from a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from lychee_client import ContractError, InvalidInputError, LycheeClient, LycheeError
from lychee_client.manifest import ModelIdentity
from lychee_client.score_mapping import Array
from lychee_client.types import Input, RerankResponse

from lychee_evaluate.calibration.pairs import Pair, SkippedRow
from lychee_evaluate.tables.message import Message

# A call encodes its query anew, so more is faster; each call has the client's whole timeout, so not too many.
MAX_DOCUMENTS: Final = 32
# A score of 1.0 says no more than that its logit was above what float32 can tell from 1.
SCORE_RESOLUTION: Final = 2.0**-24


@dataclass(frozen=True, slots=True)
class PairScores:
    """What a server makes of pairs.

    Attributes:
        pairs: The pairs that have a score, in the caller's order.
        scores: The relevance scores, float64, (pairs,), in [0, 1].
        logits: The scores before the sigmoid, float64, (pairs,).
        skipped: The rows whose pairs could not be scored.
        truncated: The numbers of the rows whose text is longer than the model reads.
        model: The model that scored; None without pairs.
        instruction: The instruction in effect; None if the model reads none.
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
        """The number of each pair's query, from 0 without gaps, (pairs,)."""
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
        client: The client that asks the server.
        pairs: The pairs to score.
        instruction: The instruction for all pairs; None takes the model's default.
        on_progress: Called with the number of further pairs done.

    Raises:
        ContractError: The server got another model meanwhile.
        LycheeError: The server cannot be reached, or cannot serve a call.
    """
    scoring = PairScoring(pairs)
    for outcome in client.rerank_many(scoring.calls(), instruction=instruction, priority="bulk"):
        if outcome.response is not None:
            on_progress(scoring.add(outcome.index, outcome.response))
        elif outcome.error is not None:
            on_progress(scoring.fail(outcome.index, outcome.error))
    return scoring.result()


class PairScoring:
    """Scores of pairs as they come in: what to ask a server, and what its answers are worth.

    Args:
        pairs: The pairs to score.
        max_documents: The most documents of one call.
    """

    def __init__(self, pairs: Sequence[Pair], max_documents: int = MAX_DOCUMENTS) -> None:
        self._pairs = pairs
        self._groups = _group(pairs, max_documents)
        self._found: dict[int, tuple[float, float]] = {}
        self._skipped: list[SkippedRow] = []
        self._truncated: list[int] = []
        self._warnings: dict[str, None] = {}
        self._first: RerankResponse | None = None

    def calls(self) -> Iterator[tuple[Input, list[Input]]]:
        """Yield query and documents of each call."""
        for group in self._groups:
            yield self._pairs[group[0]].query_input, [self._pairs[index].document_input for index in group]

    def add(self, call: int, response: RerankResponse) -> int:
        """Take the answer to a call; return how many further pairs are done.

        Args:
            call: The position of the call among `calls`.
            response: The response, with all results.

        Raises:
            ContractError: The server got another model meanwhile.
        """
        group = self._groups[call]
        self._first = self._first or response
        if response.model != self._first.model:
            raise ContractError("the server got another model while the pairs were scored; start again")
        for result in response.results:
            self._found[group[result.index]] = result.relevance_score, result.logit
            if result.truncated:
                self._truncated.append(self._pairs[group[result.index]].row)
        self._skipped += [
            SkippedRow(self._pairs[group[failed.index]].row, Message("not_scored", {"reason": failed.message}))
            for failed in response.errors
        ]
        self._warnings.update(dict.fromkeys(response.warnings))
        return len(group)

    def fail(self, call: int, error: LycheeError) -> int:
        """Take the failure of a call; return how many further pairs are done.

        Args:
            call: The position of the call among `calls`.
            error: Why there is no answer.

        Raises:
            LycheeError: The error, unless it is about this call's query only.
        """
        if not isinstance(error, InvalidInputError):
            raise error
        group = self._groups[call]
        message = Message("query_unusable", {"reason": str(error)})
        self._skipped += [SkippedRow(self._pairs[index].row, message) for index in group]
        return len(group)

    def result(self) -> PairScores:
        """Return what has come in."""
        order = sorted(self._found)
        numbers = np.array([self._found[index] for index in order], float).reshape(-1, 2)
        return PairScores(
            tuple(self._pairs[index] for index in order),
            numbers[:, 0],
            numbers[:, 1],
            tuple(sorted(self._skipped, key=lambda skip: skip.row)),
            tuple(sorted(self._truncated)),
            self._first.model if self._first else None,
            self._first.instruction if self._first else None,
            tuple(self._warnings),
        )


def take_scores(pairs: Sequence[Pair], model: ModelIdentity, instruction: str | None) -> PairScores:
    """Take the scores that came with the pairs, instead of a server's.

    Nobody can tell whose scores they are: the caller vouches for that.

    Args:
        pairs: The pairs, with the scores that came with them; those without a `relevance_score` are left out.
        model: The model whose scores they are.
        instruction: The instruction that the scores were made with; None if the model reads none.
    """
    scored = tuple(pair for pair in pairs if pair.relevance_score is not None)
    scores = np.array([pair.relevance_score for pair in scored], float)
    bounded = np.clip(scores, SCORE_RESOLUTION, 1 - SCORE_RESOLUTION)
    missing = [SkippedRow(pair.row, Message("no_score")) for pair in pairs if pair.relevance_score is None]
    logits = np.log(bounded) - np.log1p(-bounded)
    return PairScores(scored, scores, logits, tuple(missing), (), model, instruction, ())


def _group(pairs: Sequence[Pair], size: int) -> list[list[int]]:
    """Return positions of pairs with the same query, at most `size` together."""
    groups: dict[object, list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(pair.query_key, []).append(index)
    return [chunk for group in groups.values() for chunk in _chunks(group, size)]


def _chunks(group: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(group), size):
        yield list(group[start : start + size])
