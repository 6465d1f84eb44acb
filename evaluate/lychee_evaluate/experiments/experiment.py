"""Try two thresholds on real users: who gets which, and a log of what happened.

A user always gets the same variant, in every process and on every machine, because the variant is computed from the
user's key and the experiment's salt. `lychee ab-report` reads the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from lychee_client import ConfigurationError, InvalidInputError
from lychee_client.experiments import Assignment
from lychee_client.experiments.events import EVENT_KINDS, MAX_EVENT_VALUE, EventKind
from lychee_client.experiments.record_file import RecordFile
from lychee_client.experiments.records import describe_ranking, describe_user, make_record, to_lines
from lychee_client.thresholds import Policy, decide, get_policy
from lychee_client.types import RerankResponse


@dataclass(frozen=True, slots=True)
class ThresholdExperiment:
    """Two policies, and a rule that gives every user one of them or none.

    Args:
        name: The name by which the log calls the experiment.
        policies: The policies by the variant's name, the control first, then the treatment; each is a policy or the
            name of one.
        salt: What makes this experiment's variants independent of every other experiment's, and the users in the log
            unreadable to those who do not know it. Keep it secret and long, for example `secrets.token_hex(16)`, and
            never change it while the experiment runs.
        traffic_share: The share of all users that take part, above 0 and at most 1. It may be changed while the
            experiment runs: nobody changes sides.
        split: The share of those taking part that get the treatment, between 0 and 1. With 0.5 the fewest users are
            needed. Changing it moves users from one variant to the other and spoils the experiment.

    Attributes:
        assignment: The rule by which users get their variant.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    name: str
    policies: Mapping[str, Policy | str]
    salt: str
    traffic_share: float = 1.0
    split: float = 0.5
    assignment: Assignment = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.policies) != 2 or not all(self.policies):
            raise ConfigurationError(
                f"experiment {self.name!r} has the variants {list(self.policies)}; expected two with a name each, "
                "for example {'control': 'balanced', 'treatment': 'strict'}"
            )
        if not 0 < self.split < 1:
            raise ConfigurationError(f"split is {self.split}; expected above 0 and below 1, best 0.5")
        policies = {variant: get_policy(policy) for variant, policy in self.policies.items()}
        object.__setattr__(self, "policies", MappingProxyType(policies))
        shares = dict(zip(policies, (1 - self.split, self.split), strict=True))
        object.__setattr__(self, "assignment", Assignment(self.name, shares, self.salt, self.traffic_share))

    def variant(self, user_key: str) -> str | None:
        """Return the name of the user's variant, or None for a user who takes no part.

        Args:
            user_key: What stays the same for one user: an account, a cookie.

        Raises:
            InvalidInputError: The key is empty or not a string.
        """
        return self.assignment.variant(user_key)

    def policy(self, user_key: str) -> Policy | None:
        """Return the user's policy, for `rerank(policy=...)`; None, the client's own policy, outside the experiment.

        Raises:
            InvalidInputError: The key is empty or not a string.
        """
        variant = self.variant(user_key)
        return None if variant is None else get_policy(self.policies[variant])


class ExperimentLog:
    """Append an experiment's decisions and events to a file of JSON lines.

    Every record is one write to the end of the file, so threads and processes of one machine may share a file (not
    over a network file system). Queries, documents and user keys are not written. Users outside the experiment are
    not logged. Usable as a context manager.

    Args:
        experiment: The experiment whose users these are.
        path: The file to append to; if it is missing it is made, for its owner and group to read.

    Raises:
        ConfigurationError: The file cannot be opened for writing.
    """

    def __init__(self, experiment: ThresholdExperiment, path: str | Path) -> None:
        self._experiment = experiment
        self._file = RecordFile(path)

    def log_decision(self, user_key: str, response: RerankResponse, *, impressions: int | None = None) -> bool:
        """Record what a user was given.

        Args:
            user_key: See `ThresholdExperiment.variant`.
            response: The response to a call with the user's policy.
            impressions: How many documents the user was shown. None counts those that were accepted, marked for
                review, or kept by `min_results`.

        Returns:
            False for a user outside the experiment: nothing was written.

        Raises:
            InvalidInputError: The response was decided by another policy than the user's, or an argument is bad.
            LycheeError: The record cannot be written.
        """
        variant = self._experiment.variant(user_key)
        if variant is None:
            return False
        policy = get_policy(self._experiment.policies[variant])
        for result in response.results:
            if decide(result.relevance_score, policy) != result.decision:
                raise InvalidInputError(
                    f"a score of {result.relevance_score} was decided as {result.decision!r}, but the variant "
                    f"{variant!r} decides {decide(result.relevance_score, policy)!r}; pass "
                    "policy=experiment.policy(user_key) to rerank()",
                    index=result.index,
                )
        if impressions is not None and not 0 <= impressions <= MAX_EVENT_VALUE:
            raise InvalidInputError(f"impressions is {impressions}; expected a number from 0 to {MAX_EVENT_VALUE:.0e}")
        self._write(user_key, variant, describe_ranking(response, policy, impressions))
        return True

    def log_event(self, user_key: str, kind: EventKind, value: float | None = None) -> bool:
        """Record what a user did.

        Args:
            user_key: See `ThresholdExperiment.variant`.
            kind: What the user did: "click", "dwell" (reading a document) or "conversion" (buying, subscribing, solving
                the problem).
            value: How many clicks or conversions, None meaning one; for "dwell" the seconds, which must be given.

        Returns:
            False for a user outside the experiment: nothing was written.

        Raises:
            InvalidInputError: An argument is bad.
            LycheeError: The record cannot be written.
        """
        if kind not in EVENT_KINDS:
            raise InvalidInputError(f"kind is {kind!r}; expected one of {', '.join(EVENT_KINDS)}")
        if value is None and kind != "dwell":
            value = 1.0
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= MAX_EVENT_VALUE:
            raise InvalidInputError(
                f"the value of a {kind!r} event is {value!r}; expected a number from 0 to {MAX_EVENT_VALUE:.0e} "
                "(for 'dwell', the seconds)"
            )
        variant = self._experiment.variant(user_key)
        if variant is None:
            return False
        self._write(user_key, variant, {"record": "event", "event": kind, "value": value})
        return True

    def close(self) -> None:
        """Close the file; closing twice is no error."""
        self._file.close()

    def __enter__(self) -> ExperimentLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, user_key: str, variant: str, fields: Mapping[str, Any]) -> None:
        assignment = self._experiment.assignment
        whose = describe_user(assignment, user_key, variant)
        self._file.append(to_lines([make_record(assignment, **whose, **fields)]))
