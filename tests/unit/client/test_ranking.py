"""From scores to an order."""

from __future__ import annotations

from collections.abc import Sequence

from lychee_client import Policy
from lychee_client._pipelines.scoring import Outcome, Score
from lychee_client.ranking import rank, select

POLICY = Policy("test", 0.5, 0.2)


def outcome(logits: Sequence[float], relevance_score: float) -> Outcome:
    scores = {index: Score(relevance_score, logit, "text", None, None) for index, logit in enumerate(logits)}
    return Outcome(scores=scores)


def test_saturated_scores_are_ordered_by_their_logits() -> None:
    saturated = outcome([18.213, 17.9, 18.261, 18.0], 1.0)
    assert [result.index for result in rank(saturated, POLICY)[0]] == [2, 0, 3, 1]
    assert [result.logit for result in select(rank(saturated, POLICY)[0], top_n=1)] == [18.261]


def test_equal_logits_keep_the_callers_order() -> None:
    assert [result.index for result in rank(outcome([1.0, 2.0, 1.0, 2.0, 1.0], 0.7), POLICY)[0]] == [1, 3, 0, 2, 4]
