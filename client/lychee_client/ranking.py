"""From scores to a ranked response."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from lychee_client._errors import ConfigurationError
from lychee_client._pipelines.scoring import Outcome, Score
from lychee_client.thresholds import Policy, decide
from lychee_client.types import DocumentError, Input, RerankResult


def check_selection(top_n: int | None, score_threshold: float | None, min_results: int) -> None:
    """Accept the options that select results.

    Raises:
        ConfigurationError: `top_n` is below 1, `score_threshold` is outside [0, 1], or `min_results` is negative or
            above `top_n`.
    """
    if top_n is not None and top_n < 1:
        raise ConfigurationError(f"top_n is {top_n}; expected at least 1, or None for all")
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ConfigurationError(f"score_threshold is {score_threshold}; expected 0 to 1, or None for no threshold")
    if min_results < 0 or (top_n is not None and min_results > top_n):
        limit = "" if top_n is None else f" to top_n ({top_n})"
        raise ConfigurationError(f"min_results is {min_results}; expected a number from 0{limit}")


def rank(
    outcome: Outcome, policy: Policy, documents: Sequence[Input] | None = None
) -> tuple[tuple[RerankResult, ...], tuple[DocumentError, ...]]:
    """Order by logit, best first, equal ones in the caller's order.

    Scores would not do: beyond a logit of 17 all of them are 1.0 in float32.

    Args:
        outcome: What a pipeline returned.
        policy: The policy that decides; it labels results and drops none.
        documents: The documents, to be put into the results. None leaves them out.
    """
    ordered = sorted(outcome.scores.items(), key=lambda item: (-item[1].logit, item[0]))
    ranking = tuple(
        _result(index, score, policy, None if documents is None else documents[index]) for index, score in ordered
    )
    errors = tuple(DocumentError(index, str(error.args[0]), error) for index, error in sorted(outcome.errors.items()))
    return ranking, errors


def select(
    ranking: Iterable[RerankResult],
    *,
    top_n: int | None = None,
    score_threshold: float | None = None,
    min_results: int = 0,
) -> tuple[RerankResult, ...]:
    """Leave out of a ranking what was not asked for.

    Args:
        ranking: All results, best first.
        top_n: How many results to keep at most. None keeps all.
        score_threshold: The lowest relevance score that a result may have. None keeps all.
        min_results: How many of the best results are kept although they are below `score_threshold`.
    """
    results: list[RerankResult] = []
    for result in islice(ranking, top_n):
        below = score_threshold is not None and result.relevance_score < score_threshold
        if below and len(results) >= min_results:
            break
        results.append(replace(result, below_threshold=True) if below else result)
    return tuple(results)


def describe_ranking(results: Sequence[RerankResult], errors: Sequence[DocumentError]) -> dict[str, int]:
    """Return how many results there are, by decision too, and errors: what a span may tell of a ranking."""
    decisions = Counter(f"lychee.decisions.{result.decision}" for result in results)
    return {"lychee.results": len(results), "lychee.errors": len(errors), **decisions}


def _result(index: int, score: Score, policy: Policy, document: Input | None) -> RerankResult:
    return RerankResult(
        index=index,
        relevance_score=score.relevance_score,
        logit=score.logit,
        decision=decide(score.relevance_score, policy),
        modality=score.modality,
        truncated=score.tokens is not None and score.tokens.truncated,
        tokens=None if score.tokens is None else len(score.tokens.ids),
        image_size=None if score.image is None else score.image.size,
        image_resized_to=None if score.image is None else score.image.resized_to,
        image_tokens=None if score.image is None else score.image.tokens,
        document=document,
        chunk=score.chunk,
    )
