"""From scores to a ranked response."""

from __future__ import annotations

from lychee_client._errors import ConfigurationError
from lychee_client._pipelines.dual_encoder import Outcome
from lychee_client._types import DocumentError, RerankResponse, RerankResult
from lychee_client.thresholds import Policy, decide


def check_selection(top_n: int | None, score_threshold: float | None) -> None:
    """Accept the two options that select results.

    Raises:
        ConfigurationError: `top_n` is below 1, or `score_threshold` is outside [0, 1].
    """
    if top_n is not None and top_n < 1:
        raise ConfigurationError(f"top_n is {top_n}; expected at least 1, or None for all")
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ConfigurationError(f"score_threshold is {score_threshold}; expected 0 to 1, or None for no threshold")


def rank(
    outcome: Outcome, policy: Policy, top_n: int | None = None, score_threshold: float | None = None
) -> RerankResponse:
    """Order by score, best first, equal scores in the caller's order; then drop what was not asked for.

    Args:
        outcome: Of a plan.
        policy: Decides; it labels results and drops none.
        top_n: At most so many results. None keeps all.
        score_threshold: Inclusive. None keeps all.
    """
    ordered = sorted(outcome.scores.items(), key=lambda item: (-item[1].relevance_score, item[0]))
    results = tuple(
        RerankResult(
            index=index,
            relevance_score=score.relevance_score,
            decision=decide(score.relevance_score, policy),
            modality=score.modality,
            truncated=score.truncated,
        )
        for index, score in ordered
        if score_threshold is None or score.relevance_score >= score_threshold
    )
    errors = tuple(DocumentError(index, str(error), error) for index, error in sorted(outcome.errors.items()))
    return RerankResponse(results[:top_n], errors, outcome.timings)
