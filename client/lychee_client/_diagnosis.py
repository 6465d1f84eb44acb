"""From a transport's failure to an exception that says what to do."""

from __future__ import annotations

from typing import Any, Final

from lychee_client._errors import (
    ConnectionFailedError,
    LycheeError,
    ModelNotReadyError,
    RequestRejectedError,
    ServerError,
    ServerOverloadedError,
)
from lychee_client.transports.base import Ambiguity, ControlRequest, TransportError

# Triton's statuses for a model, or a version of one, that it does not have. Another replica may answer a probe.
_ABSENT: Final = frozenset({"NOT_FOUND", "404"})


def probe_for(failure: TransportError, model_name: str, model_version: str = "") -> ControlRequest | None:
    """Return the question that settles what the status leaves open, or None where nothing is open."""
    if failure.kind is Ambiguity.OVERLOADED_OR_GONE:
        return ControlRequest("live")
    if failure.kind is Ambiguity.REJECTED_OR_NOT_READY and failure.status not in _ABSENT:
        return ControlRequest("model_ready", model_name, model_version=model_version)
    return None


def diagnose(failure: TransportError, probe_passed: bool, model_name: str, url: str) -> LycheeError:
    """Return the exception for a failure.

    Args:
        failure: The failure of one request, as its transport reports it.
        probe_passed: Whether the probe was answered with yes; ignored where there was no probe.
        model_name: The model that was asked for, or the action.
        url: The server's URL, for the message.
    """
    kind = failure.kind
    if kind is Ambiguity.OVERLOADED_OR_GONE:
        kind = ServerOverloadedError if probe_passed else ConnectionFailedError
    elif kind is Ambiguity.REJECTED_OR_NOT_READY:
        kind = RequestRejectedError if probe_passed else ModelNotReadyError
    about: dict[str, Any] = {"model_name": model_name, "request_id": failure.request_id}
    if kind is ConnectionFailedError:
        return ConnectionFailedError(
            f"no {'gateway or ' if url.startswith('http') else ''}Triton server answers on {url}: {failure.details}; "
            "start one with `lychee load`, and check that protocol, port (8001 for gRPC, http://HOST:8000 for HTTP, "
            "http://HOST:7860 for a gateway) and TLS are the server's",
            **about,
        )
    if not isinstance(kind, type) or not issubclass(kind, ServerError):
        raise AssertionError(f"a transport's table maps {failure.status} to {kind}")
    advice = {
        ServerOverloadedError: f"{url} is live but did not take the request to {model_name}: {failure.details}; "
        "try again later, or send less at a time",
        ModelNotReadyError: f"{model_name} is not ready on {url}: {failure.details}; use wait_until_ready(), or look "
        "into the server's log",
    }
    message = advice.get(kind, f"{model_name} on {url} answered {failure.status}: {failure.details}")
    return kind(message, status=failure.status, **about)
