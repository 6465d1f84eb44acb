"""A calibration: the threshold and the score mapping that labelled pairs gave for one model and one instruction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import msgspec
import numpy.typing as npt
from msgspec import Meta, Struct

from lychee_client._errors import ConfigurationError
from lychee_client.files import check_writable, write_atomically
from lychee_client.json_object import parse_object, read_object
from lychee_client.manifest.manifest import ModelIdentity
from lychee_client.score_mapping import Array, ScoreMapping
from lychee_client.thresholds import Policy, get_policy

FORMAT_VERSION: Final = 1
SHORT_HASH: Final = 12

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]


class Calibration(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format_version", tag=FORMAT_VERSION
):
    """What `lychee calibrate` writes. Pass it to a client as its policy.

    Args:
        created_at: When the calibration was made: UTC, ISO 8601, for example "2026-11-22T09:30:00Z".
        client_version: The version of lychee-rerank-client that wrote it.
        model: The model whose scores were calibrated.
        instruction: The instruction in effect; None where the model reads none.
        target: What the threshold was chosen for: "precision>=P", "recall>=R" or "f1".
        threshold: The lowest `relevance_score` of an accepted document: the threshold is inclusive.
        threshold_low: The lower end of the threshold's bootstrap confidence interval.
        threshold_high: The upper end of that interval.
        confidence: The confidence level of that interval, in (0, 1).
        review_threshold: The lowest score of a document that is marked for review, if it is below `threshold`. If it
            equals `threshold`, there is no review band.
        precision: The share that is relevant among the labelled pairs that `threshold` accepts.
        recall: The share of the relevant pairs that `threshold` accepts.
        f1: The harmonic mean of precision and recall.
        pairs: How many labelled pairs all this rests on.
        positives: How many of them are relevant.
        queries: How many queries they belong to.
        mapping: The mapping from the logit to the probability of being relevant.
        data_sha256: The SHA-256 of the labelled pairs, whatever their order and file names; 64 hex digits.

    Raises:
        ConfigurationError: Numbers do not fit each other.
    """

    created_at: str
    client_version: str
    model: ModelIdentity
    instruction: str | None
    target: str
    threshold: Share
    threshold_low: Share
    threshold_high: Share
    confidence: Share
    review_threshold: Share
    precision: Share
    recall: Share
    f1: Share
    pairs: int
    positives: int
    queries: int
    mapping: ScoreMapping
    data_sha256: str

    def __post_init__(self) -> None:
        if not 0 <= self.review_threshold <= self.threshold:
            raise ConfigurationError(
                f"review_threshold is {self.review_threshold}; expected a number from 0 to the threshold "
                f"{self.threshold}"
            )
        if self.threshold_low > self.threshold_high:
            raise ConfigurationError(
                f"threshold_low is {self.threshold_low}; expected at most threshold_high {self.threshold_high}"
            )
        if not (0 < self.positives < self.pairs and 0 < self.queries <= self.pairs):
            raise ConfigurationError(
                f"pairs is {self.pairs}, positives {self.positives} and queries {self.queries}; "
                "expected 0 < positives < pairs and 0 < queries <= pairs"
            )

    @property
    def policy(self) -> Policy:
        """The thresholds for `rerank`; accept and review, both inclusive."""
        return Policy(f"calibrated {self.target}", accept=self.threshold, review=self.review_threshold)

    def probability(self, logits: npt.ArrayLike) -> Array:
        """Return how likely pairs are to be relevant, going by the labelled pairs.

        Args:
            logits: One or many of `RerankResult.logit`. Not the relevance score, which is 1.0 for every large logit.

        Returns:
            float64, in the shape of `logits`, in [0, 1].
        """
        return self.mapping.probability(logits)

    def mismatches(self, identity: ModelIdentity, instruction: str | None) -> tuple[str, ...]:
        """Say why the threshold may not fit a server and an instruction.

        Artifacts are compared where both sides know them, and only within the same model, revision and precision:
        otherwise they differ anyway.

        Args:
            identity: The identity of the model that is to be used.
            instruction: The instruction in effect; None where the model reads none.

        Returns:
            A phrase for each difference; empty if the calibration fits.
        """
        differences = []
        for name in ("model_id", "revision", "precision"):
            calibrated, used = getattr(self.model, name), getattr(identity, name)
            if calibrated != used:
                differences.append(f"it was made for {name} {calibrated!r}, the server has {used!r}")
        if not differences:
            for name in sorted(self.model.artifacts.keys() & identity.artifacts.keys()):
                calibrated, used = self.model.artifacts[name], identity.artifacts[name]
                if calibrated != used:
                    differences.append(
                        f"it was made with {name} of SHA-256 {calibrated[:SHORT_HASH]}..., "
                        f"the server has {used[:SHORT_HASH]}..."
                    )
        for name in sorted(self.model.execution.keys() & identity.execution.keys()):
            calibrated, used = self.model.execution[name], identity.execution[name]
            if calibrated != used:
                differences.append(f"it was made with {name} computed in {calibrated}, the server computes in {used}")
        if self.instruction != instruction:
            differences.append(
                f"it was made with {_describe_instruction(self.instruction)}, "
                f"the call uses {_describe_instruction(instruction)}"
            )
        return tuple(differences)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file as JSON types."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        return content

    def to_bytes(self) -> bytes:
        """Return the content of the file: JSON, UTF-8.

        Raises:
            ConfigurationError: `load` would not read it: a number is not finite, or out of its range.
        """
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=2) + "\n"
        parse_object(text, type(self))
        return text.encode("utf-8")

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Write the calibration as JSON; on failure the file keeps its old content.

        Args:
            path: The file to write; by custom its name ends with .json.
            replace: Whether an existing file may be replaced.

        Raises:
            ConfigurationError: The file exists and may not be replaced, or cannot be written; or see `to_bytes`.
        """
        path = Path(path)
        check_writable(path, replace=replace)
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            ConfigurationError: The file cannot be read, is no calibration, or is of a newer version; the message names
                the file and the key.
        """
        try:
            return read_object(Path(path), cls)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{path} is not a calibration that this client can use: {error}; run `lychee calibrate` again"
            ) from error


def _describe_instruction(instruction: str | None) -> str:
    return "no instruction" if instruction is None else f"the instruction {instruction!r}"


def thresholds_of(policy: str | Policy | Calibration) -> Policy:
    """Return the policy that a name or a calibration stands for."""
    return policy.policy if isinstance(policy, Calibration) else get_policy(policy)
