"""The records of an experiment: what was shown to whom, and what they did. One JSON object each."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lychee_client.experiments.assignment import Assignment
from lychee_client.thresholds import Policy
from lychee_client.types import RerankResponse

LOG_FORMAT_VERSION: Final = 1
# Of one ranking; nobody looks further, and a record stays one short line.
MAX_RESULTS: Final = 100


def describe_side(name: str, ranking: RerankResponse | None, seconds: float, error: str | None) -> dict[str, Any]:
    """Return what one of two models made of a call, which both were asked; no texts.

    Args:
        name: By which the gateway serves the model.
        ranking: All results, and the errors of documents; None where the call failed.
        seconds: How long the model took for it, waiting included.
        error: What the call failed with, as the name of a class; None where it did not.
    """
    side: dict[str, Any] = {"name": name, "latency_ms": round(1e3 * seconds, 3), "error": error}
    if ranking is None:
        return side
    model = ranking.model
    results = sorted(ranking.results, key=lambda result: -result.relevance_score)
    return side | {
        "model": None if model is None else f"{model.model_id} {model.revision} {model.precision}",
        "model_version": ranking.model_version,
        "documents": len(results),
        "errors": len(ranking.errors),
        "results": [
            {"index": result.index, "relevance_score": result.relevance_score, "decision": result.decision}
            for result in results[:MAX_RESULTS]
        ],
    }


def make_record(assignment: Assignment, **fields: Any) -> dict[str, Any]:
    """Return a record of this moment."""
    seconds = time.time()
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}+00:00"
    return {"format_version": LOG_FORMAT_VERSION, "at": at, "experiment": assignment.name, **fields}


def describe_user(assignment: Assignment, user_key: str, variant: str) -> dict[str, Any]:
    """Return the fields that say whose a record is, without the user's key."""
    return {"variant": variant, "share": assignment.shares[variant], "user": assignment.pseudonym(user_key)}


def describe_ranking(response: RerankResponse, policy: Policy, impressions: int | None = None) -> dict[str, Any]:
    """Return the fields that say what a user was given; of queries, documents and instructions nothing can be read.

    Args:
        response: The response to the user's call.
        policy: The policy that decided.
        impressions: How many documents the user was shown. None counts those that were accepted, marked for review,
            or kept by `min_results`.
    """
    if impressions is None:
        impressions = sum(result.decision != "reject" or result.below_threshold for result in response.results)
    model, instruction = response.model, response.instruction
    return {
        "record": "decision",
        "impressions": impressions,
        "policy": {"name": policy.name, "accept": policy.accept, "review": policy.review},
        "model": None if model is None else f"{model.model_id} {model.revision} {model.precision}",
        # An application may put words of its user into the instruction.
        "instruction_sha256": None if instruction is None else hashlib.sha256(instruction.encode()).hexdigest(),
        "results": [
            {"index": result.index, "relevance_score": result.relevance_score, "decision": result.decision}
            for result in response.results[:MAX_RESULTS]
        ],
    }


def to_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Return records as they stand in a file."""
    return b"".join(json.dumps(record, allow_nan=False).encode("ascii") + b"\n" for record in records)
