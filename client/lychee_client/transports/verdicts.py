"""What the outcome of one request says about its replica, and about whether another one may do better."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from lychee_client._errors import ConnectionFailedError, InferenceError
from lychee_client.transports.base import (
    Ambiguity,
    ControlRequest,
    JsonRequest,
    JsonResponse,
    Request,
    TransportError,
)


class Verdict(enum.Enum):
    """What became of a request."""

    ANSWERED = enum.auto()
    LOST = enum.auto()  # nobody is there any more
    NOT_READY = enum.auto()  # somebody is there, and takes no requests
    OVERLOADED = enum.auto()  # its queue is full, or it stops
    UNKNOWN = enum.auto()  # the model is not there, or the request is wrong
    FAILED = enum.auto()  # while it was computed
    FINAL = enum.auto()  # another replica would say the same


def judge(request: Request, outcome: object) -> Verdict:
    """Return what became of a request.

    Args:
        request: The request.
        outcome: The answer or the exception; None where the request was given up with its connection.
    """
    if outcome is None:
        return Verdict.LOST
    if isinstance(outcome, TransportError):
        return _judge_failure(request, outcome)
    if isinstance(outcome, BaseException):
        return Verdict.FINAL
    if isinstance(outcome, JsonResponse) and outcome.status in (502, 503):
        return Verdict.NOT_READY
    if isinstance(request, ControlRequest) and isinstance(outcome, Mapping) and outcome.get("ready") is False:
        return Verdict.UNKNOWN if request.action == "model_ready" else Verdict.NOT_READY
    return Verdict.ANSWERED


def may_repeat(request: Request, outcome: object) -> bool:
    """Say whether the request may be sent again: what must not happen twice only if it did not happen."""
    if not isinstance(request, JsonRequest) or not request.once:
        return True
    return isinstance(outcome, TransportError) and (outcome.unsent or outcome.response is not None)


def _judge_failure(request: Request, failure: TransportError) -> Verdict:
    if failure.response is not None:
        by_status = {429: Verdict.OVERLOADED, 500: Verdict.FAILED, 502: Verdict.NOT_READY, 503: Verdict.NOT_READY}
        return by_status.get(failure.response.status, Verdict.FINAL)
    if failure.kind is ConnectionFailedError:
        return Verdict.LOST
    if failure.kind is Ambiguity.OVERLOADED_OR_GONE:
        gone = failure.is_connected is not None and not failure.is_connected()
        return Verdict.LOST if gone else Verdict.OVERLOADED
    if failure.kind is Ambiguity.REJECTED_OR_NOT_READY:
        return Verdict.UNKNOWN
    return Verdict.FAILED if failure.kind is InferenceError else Verdict.FINAL
