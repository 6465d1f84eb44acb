"""Scores of pairs that do not share one query: a call for each query, and the scores in the order of the pairs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lychee_client import InvalidInputError, ModelNotReadyError, RerankResult

from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.service_answer import ServiceAnswer

PARALLEL_CALLS: Final = 4
MOST_MODELS: Final = 4  # that may be served while the pairs of one request are scored

Call = Callable[[object, Sequence[object]], Awaitable[ServiceAnswer]]


@dataclass(frozen=True, slots=True)
class PairScores:
    """The scores of pairs.

    Attributes:
        id: The request's id.
        model: The name of the model.
        scores: In the order of the pairs; None: the pair could not be scored.
        total_tokens: Of all pairs.
        warnings: What does not fit together, each once.
    """

    id: str
    model: str
    scores: list[RerankResult | None]
    total_tokens: int
    warnings: list[str]


async def score_pairs(call: Call, query: object, documents: Sequence[object]) -> list[tuple[list[int], ServiceAnswer]]:
    """Score each document for its query, all by one model.

    Args:
        call: Ranks documents for one query.
        query: Of all documents, or a list with one for each.
        documents: The documents.

    Returns:
        For each different query the places of its documents, and the answer of its call.

    Raises:
        ModelNotReadyError: The model was replaced each time.
    """
    for _ in range(MOST_MODELS):
        answers = await _score_once(call, query, documents)
        responses = [answer.response for _, answer in answers]
        if len({response.model_version for response in responses if response.model is not None}) <= 1:
            return answers
    raise ModelNotReadyError(f"another model was served {MOST_MODELS} times while the pairs were scored; try again")


async def _score_once(call: Call, query: object, documents: Sequence[object]) -> list[tuple[list[int], ServiceAnswer]]:
    groups = [(query, list(range(len(documents))))] if not isinstance(query, list) else _group(query)
    room = asyncio.Semaphore(PARALLEL_CALLS)

    async def ask(query: object, places: list[int]) -> tuple[list[int], ServiceAnswer]:
        async with room:
            return places, await call(query, [documents[place] for place in places])

    try:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(*group)) for group in groups]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    current_notes().documents = len(documents)
    return [task.result() for task in asked]


def merge_scores(answers: Sequence[tuple[list[int], ServiceAnswer]], model: str) -> PairScores:
    """Put the scores of calls into the order of the pairs.

    Raises:
        LycheeError: No pair could be scored.
    """
    scores: list[RerankResult | None] = [None] * sum(len(places) for places, _ in answers)
    for places, answer in answers:
        for result in answer.response.results:
            scores[places[result.index]] = result
    failures = [failed for _, answer in answers for failed in answer.response.errors]
    if failures and not any(scores):
        if isinstance(failures[0].error, InvalidInputError):
            raise RequestValueError(failures[0].message, "documents", kind="invalid_input")
        raise failures[0].error
    warnings = list(dict.fromkeys(warning for _, answer in answers for warning in answer.response.warnings))
    current_notes().warnings = len(warnings)
    return PairScores(
        id=answers[0][1].request_id,
        model=model,
        scores=scores,
        total_tokens=sum(answer.usage.tokens for _, answer in answers),
        warnings=warnings,
    )


def _group(queries: Sequence[object]) -> list[tuple[object, list[int]]]:
    """Return each different query with its places."""
    groups: dict[Any, tuple[object, list[int]]] = {}
    for place, query in enumerate(queries):
        key = query if isinstance(query, str) else (json.dumps(query, sort_keys=True),)
        groups.setdefault(key, (query, []))[1].append(place)
    return list(groups.values())
