"""Try two thresholds on real users: who gets which, and a log of what happened.

A user always gets the same variant, in every process and on every machine, because the variant is computed from the
user's key and the experiment's salt. `lychee ab-report` reads the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, TypeAlias, get_args

from lychee_client import ConfigurationError, InvalidInputError, LycheeError
from lychee_client.thresholds import Policy, decide, get_policy
from lychee_client.types import RerankResponse

EventKind: TypeAlias = Literal["click", "dwell", "conversion"]

EVENT_KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)
LOG_FORMAT_VERSION: Final = 1
# 30 years of reading; anything above is a mistake, and one of it would drown all other users.
MAX_EVENT_VALUE: Final = 1e9


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

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    name: str
    policies: Mapping[str, Policy | str]
    salt: str
    traffic_share: float = 1.0
    split: float = 0.5

    def __post_init__(self) -> None:
        if not self.name or not self.salt:
            raise ConfigurationError(
                f"the experiment's name is {self.name!r} and its salt has {len(self.salt)} characters; "
                "expected neither to be empty"
            )
        if len(self.policies) != 2 or not all(self.policies):
            raise ConfigurationError(
                f"experiment {self.name!r} has the variants {list(self.policies)}; expected two with a name each, "
                "for example {'control': 'balanced', 'treatment': 'strict'}"
            )
        if not 0 < self.traffic_share <= 1:
            raise ConfigurationError(f"traffic_share is {self.traffic_share}; expected above 0 and at most 1")
        if not 0 < self.split < 1:
            raise ConfigurationError(f"split is {self.split}; expected above 0 and below 1, best 0.5")
        policies = {variant: get_policy(policy) for variant, policy in self.policies.items()}
        object.__setattr__(self, "policies", MappingProxyType(policies))

    def variant(self, user_key: str) -> str | None:
        """Return the name of the user's variant, or None for a user who takes no part.

        Args:
            user_key: What stays the same for one user: an account, a cookie.

        Raises:
            InvalidInputError: The key is empty or not a string.
        """
        digest = self._digest("variant", user_key)
        takes_part, side = (int.from_bytes(part, "big") / 2**64 for part in (digest[:8], digest[8:16]))
        if takes_part >= self.traffic_share:
            return None
        control, treatment = self.policies
        return treatment if side < self.split else control

    def policy(self, user_key: str) -> Policy | None:
        """Return the user's policy, for `rerank(policy=...)`; None, the client's own policy, outside the experiment.

        Raises:
            InvalidInputError: The key is empty or not a string.
        """
        variant = self.variant(user_key)
        return None if variant is None else get_policy(self.policies[variant])

    def share(self, variant: str) -> float:
        """Return the planned share of a variant among those who take part."""
        return self.split if variant == list(self.policies)[1] else 1 - self.split

    def pseudonym(self, user_key: str) -> str:
        """Return what stands for the user in the log, 64 hex digits; without the salt, nobody can guess the key.

        Raises:
            InvalidInputError: The key is empty or not a string.
        """
        return self._digest("user", user_key).hex()

    def _digest(self, purpose: str, user_key: str) -> bytes:
        if not isinstance(user_key, str) or not user_key:
            raise InvalidInputError(f"user_key is {user_key!r}; expected a string that is not empty")
        message = f"{purpose}\0{user_key}".encode("utf-8", "surrogatepass")
        return hmac.new(self.salt.encode("utf-8", "surrogatepass"), message, hashlib.sha256).digest()


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
        self._path = Path(path)
        self._lock = threading.Lock()  # close() must not pull the file away from under a write
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        except OSError as error:
            raise ConfigurationError(
                f"the log {self._path} cannot be opened: {error.strerror}; check the folder and its permissions"
            ) from error
        self._closed = False
        self._end_torn_line()

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
        if impressions is None:
            impressions = sum(result.decision != "reject" or result.below_threshold for result in response.results)
        if not 0 <= impressions <= MAX_EVENT_VALUE:
            raise InvalidInputError(f"impressions is {impressions}; expected a number from 0 to {MAX_EVENT_VALUE:.0e}")
        model, instruction = response.model, response.instruction
        self._write(
            user_key,
            variant,
            record="decision",
            impressions=impressions,
            policy={"name": policy.name, "accept": policy.accept, "review": policy.review},
            model=None if model is None else f"{model.model_id} {model.revision} {model.precision}",
            # An application may put words of its user into the instruction.
            instruction_sha256=None if instruction is None else hashlib.sha256(instruction.encode()).hexdigest(),
            results=[
                {"index": result.index, "relevance_score": result.relevance_score, "decision": result.decision}
                for result in response.results
            ],
        )
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
        self._write(user_key, variant, record="event", event=kind, value=value)
        return True

    def close(self) -> None:
        """Close the file; closing twice is no error."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._file)

    def __enter__(self) -> ExperimentLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, user_key: str, variant: str, **fields: Any) -> None:
        record = {
            "format_version": LOG_FORMAT_VERSION,
            "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "experiment": self._experiment.name,
            "variant": variant,
            "share": self._experiment.share(variant),
            "user": self._experiment.pseudonym(user_key),
            **fields,
        }
        line = json.dumps(record, allow_nan=False).encode("ascii") + b"\n"
        with self._lock:
            if self._closed:
                raise LycheeError(f"the log {self._path} is closed; open another ExperimentLog")
            try:
                written = os.write(self._file, line)
            except OSError as error:
                raise LycheeError(f"nothing was logged: writing to {self._path} failed: {error.strerror}") from error
            if written < len(line):
                self._end_torn_line()
                raise LycheeError(f"nothing was logged: {self._path} took {written} of {len(line)} bytes; free space")

    def _end_torn_line(self) -> None:
        """Keep half a line, left by a crash or a full disk, from swallowing the next record."""
        with contextlib.suppress(OSError):  # a pipe cannot be read back, a full disk not be written
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")
