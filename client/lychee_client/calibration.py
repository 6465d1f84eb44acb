"""A calibration: the threshold and the score mapping that labelled pairs gave for one model and one instruction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from lychee_client._errors import ConfigurationError
from lychee_client.files import check_writable, write_atomically
from lychee_client.json_object import JsonObject, read_json_object
from lychee_client.manifest.manifest import ModelIdentity
from lychee_client.score_mapping import Array, IsotonicMapping, PlattMapping, ScoreMapping
from lychee_client.thresholds import Policy

FORMAT_VERSION: Final = 1
SHORT_HASH: Final = 12


@dataclass(frozen=True, slots=True)
class Calibration:
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
        ConfigurationError: A number is out of its range.
    """

    created_at: str
    client_version: str
    model: ModelIdentity
    instruction: str | None
    target: str
    threshold: float
    threshold_low: float
    threshold_high: float
    confidence: float
    review_threshold: float
    precision: float
    recall: float
    f1: float
    pairs: int
    positives: int
    queries: int
    mapping: ScoreMapping
    data_sha256: str

    def __post_init__(self) -> None:
        for name in ("threshold", "threshold_low", "threshold_high", "confidence", "precision", "recall", "f1"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigurationError(f"{name} is {value}; expected a number from 0 to 1")
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
        return {
            "format_version": FORMAT_VERSION,
            "created_at": self.created_at,
            "client_version": self.client_version,
            "model": {
                "model_id": self.model.model_id,
                "revision": self.model.revision,
                "precision": self.model.precision,
                "artifacts": dict(self.model.artifacts),
                "execution": dict(self.model.execution),
            },
            "instruction": self.instruction,
            "target": self.target,
            "threshold": self.threshold,
            "threshold_low": self.threshold_low,
            "threshold_high": self.threshold_high,
            "confidence": self.confidence,
            "review_threshold": self.review_threshold,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "pairs": self.pairs,
            "positives": self.positives,
            "queries": self.queries,
            "mapping": self.mapping.to_json(),
            "data_sha256": self.data_sha256,
        }

    def to_bytes(self) -> bytes:
        """Return the content of the file: JSON, UTF-8."""
        return (json.dumps(self.to_json(), ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode("utf-8")

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Write the calibration as JSON; on failure the file keeps its old content.

        Args:
            path: The file to write; by custom its name ends with .json.
            replace: Whether an existing file may be replaced.

        Raises:
            ConfigurationError: The file exists and may not be replaced, or cannot be written.
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
            return _parse(read_json_object(Path(path)))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{path} is not a calibration that this client can use: {error}; run `lychee calibrate` again"
            ) from error


def _describe_instruction(instruction: str | None) -> str:
    return "no instruction" if instruction is None else f"the instruction {instruction!r}"


def _parse(data: JsonObject) -> Calibration:
    version = data.take("format_version", int)
    if version != FORMAT_VERSION:
        raise ConfigurationError(
            f"format_version is {version}, this client reads {FORMAT_VERSION} (a newer client may read it)"
        )
    calibration = Calibration(
        created_at=data.take("created_at", str),
        client_version=data.take("client_version", str),
        model=_parse_model(data.take_object("model")),
        instruction=data.take_optional("instruction", str),
        target=data.take("target", str),
        threshold=data.take_number("threshold"),
        threshold_low=data.take_number("threshold_low"),
        threshold_high=data.take_number("threshold_high"),
        confidence=data.take_number("confidence"),
        review_threshold=data.take_number("review_threshold"),
        precision=data.take_number("precision"),
        recall=data.take_number("recall"),
        f1=data.take_number("f1"),
        pairs=data.take("pairs", int),
        positives=data.take("positives", int),
        queries=data.take("queries", int),
        mapping=_parse_mapping(data.take_object("mapping")),
        data_sha256=data.take("data_sha256", str),
    )
    data.end()
    return calibration


def _parse_model(data: JsonObject) -> ModelIdentity:
    identity = ModelIdentity(
        model_id=data.take("model_id", str),
        revision=data.take("revision", str),
        precision=data.take("precision", str),
        artifacts=data.take_texts("artifacts"),
        execution=data.take_texts("execution") if data.has("execution") else {},  # older files do not know it
    )
    data.end()
    return identity


def _parse_mapping(data: JsonObject) -> ScoreMapping:
    kind = data.take("kind", str)
    mapping: ScoreMapping
    if kind == "platt":
        mapping = PlattMapping(data.take_number("slope"), data.take_number("intercept"))
    elif kind == "isotonic":
        mapping = IsotonicMapping(data.take_numbers("logits"), data.take_numbers("probabilities"))
    else:
        raise ConfigurationError(f"mapping.kind is {kind!r}; expected 'platt' or 'isotonic'")
    data.end()
    return mapping
