"""Policies: every boundary is inclusive."""

import pytest
from lychee_client import POLICIES, ConfigurationError, Policy, decide


@pytest.mark.parametrize(
    ("policy", "relevance_score", "decision"),
    [
        ("strict", 1.0, "accept"),
        ("strict", 0.75, "accept"),
        ("strict", 0.7499, "reject"),
        ("balanced", 0.55, "accept"),
        ("balanced", 0.5499, "reject"),
        ("exploratory", 0.55, "accept"),
        ("exploratory", 0.5499, "review"),
        ("exploratory", 0.4, "review"),
        ("exploratory", 0.3999, "reject"),
        ("exploratory", 0.0, "reject"),
    ],
)
def test_decide(policy: str, relevance_score: float, decision: str) -> None:
    assert decide(relevance_score, policy) == decision
    assert decide(relevance_score, POLICIES[policy]) == decision


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lenient"):
        decide(0.5, "lenient")


@pytest.mark.parametrize(("accept", "review"), [(0.5, 0.6), (1.1, 0.5), (0.5, -0.1), (float("nan"), 0.1)])
def test_thresholds_out_of_order_are_refused(accept: float, review: float) -> None:
    with pytest.raises(ConfigurationError, match="review"):
        Policy("own", accept=accept, review=review)
