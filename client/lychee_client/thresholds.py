"""From scores to decisions: named policies with inclusive thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from lychee_client._errors import ConfigurationError

Decision: TypeAlias = Literal["accept", "review", "reject"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Two inclusive thresholds on `relevance_score`.

    Args:
        name: The name by which users call the policy.
        accept: The lowest score of a document that is accepted.
        review: The lowest score of a document that is marked for review, if it is below `accept`. If it equals
            `accept`, there is no review band.

    Raises:
        ConfigurationError: The thresholds are not 0 <= review <= accept <= 1.
    """

    name: str
    accept: float
    review: float

    def __post_init__(self) -> None:
        if not 0 <= self.review <= self.accept <= 1:
            raise ConfigurationError(
                f"policy {self.name!r} has review {self.review} and accept {self.accept}; "
                "expected 0 <= review <= accept <= 1"
            )


POLICIES: Final[Mapping[str, Policy]] = MappingProxyType(
    {
        "strict": Policy("strict", accept=0.75, review=0.75),
        "balanced": Policy("balanced", accept=0.55, review=0.55),
        "exploratory": Policy("exploratory", accept=0.55, review=0.4),
    }
)


def get_policy(policy: str | Policy) -> Policy:
    """Return the named policy; a Policy passes through.

    Raises:
        ConfigurationError: No policy has that name.
    """
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise ConfigurationError(f"policy is {policy!r}; expected one of {', '.join(POLICIES)}")
    return POLICIES[policy]


def decide(relevance_score: float, policy: str | Policy) -> Decision:
    """Turn one score into a decision.

    Args:
        relevance_score: The score to decide on, in [0, 1].
        policy: A policy or the name of one.

    Returns:
        "accept", "review" or "reject"; a score that equals a threshold passes it.

    Raises:
        ConfigurationError: No policy has that name.
    """
    thresholds = get_policy(policy)
    if relevance_score >= thresholds.accept:
        return "accept"
    return "review" if relevance_score >= thresholds.review else "reject"
