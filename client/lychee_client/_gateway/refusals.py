"""From a gateway's errors to exceptions: the gateway's own table (errors.py there), read backwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lychee_client._errors import (
    ConfigurationError,
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    InvalidOutputError,
    LycheeError,
    ModelNotReadyError,
    RequestRejectedError,
    ServerError,
    ServerOverloadedError,
)
from lychee_client.transports.base import JsonResponse
from lychee_client.types import DocumentError

MAX_CHARACTERS: Final = 500
# By the type that the answer names.
_TYPES: Final[Mapping[str, type[LycheeError]]] = {
    "invalid_input": InvalidInputError,
    "invalid_request": ConfigurationError,
    "model_not_found": ConfigurationError,
    "invalid_output": InvalidOutputError,
    "model_failed": InferenceError,
    "bad_answer": ContractError,
    "unavailable": ModelNotReadyError,
    "stopping": ConnectionFailedError,
    "too_busy": ServerOverloadedError,
    "busy": ServerOverloadedError,
    "timeout": DeadlineExceededError,
}
# By the status, where it is somebody else's answer (a proxy's), or one of no such type. What is in neither table is a
# ServerError.
_STATUSES: Final[Mapping[int, type[LycheeError]]] = {
    **dict.fromkeys((400, 401, 403, 404, 405, 413, 422), RequestRejectedError),
    408: DeadlineExceededError,
    429: ServerOverloadedError,
    502: ConnectionFailedError,
    503: ConnectionFailedError,
    504: DeadlineExceededError,
}
_KEY_ADVICE: Final = (
    "name the gateway's API key with api_key or LYCHEE_API_KEY, or what a proxy in front of it wants with headers"
)
_ADVICE: Final[Mapping[int, str]] = {
    401: _KEY_ADVICE,
    403: _KEY_ADVICE,
    413: "send fewer documents or smaller images at a time, or start the gateway with a larger --max-request-mb",
}


def read_refusal(response: JsonResponse, url: str, request_id: str) -> LycheeError:
    """Return the exception for an answer that is an error of HTTP.

    Args:
        response: The answer.
        url: The gateway's URL, for the message.
        request_id: The id of the request, where the answer names no other.
    """
    content: Mapping[str, Any] = response.content if isinstance(response.content, Mapping) else {}
    message = content.get("message")
    if not isinstance(message, str):
        return _read_foreign(response, url, request_id)
    kind = _TYPES.get(str(content.get("type"))) or _STATUSES.get(response.status, ServerError)
    own_id = content.get("request_id")
    message = message[:MAX_CHARACTERS]
    if issubclass(kind, (InvalidInputError, ConfigurationError)):  # the caller's, in the words that the caller knows
        return _make(kind, message, response.status, own_id or request_id)
    advice = _ADVICE.get(response.status)
    message = f"{url} answered {response.status}: {message}" + (f"; {advice}" if advice else "")
    return _make(kind, message, response.status, own_id or request_id)


def _read_foreign(response: JsonResponse, url: str, request_id: str) -> LycheeError:
    """Return the exception for an answer that is none of a gateway's."""
    software = response.headers.get("Server") or "no name"
    location = response.headers.get("Location")
    advice = _ADVICE.get(response.status)
    if location is not None and 300 <= response.status < 400:
        advice = f"it sends callers on to {location[:MAX_CHARACTERS]}; if that is the gateway, use its URL"
    if advice is None:
        advice = (
            "expected a gateway (http://HOST:7860, or a proxy's URL with the path below which it serves one) or a "
            "Triton server (HOST:8001 for gRPC, http://HOST:8000 for HTTP); check host, port and path"
        )
    message = f"{url} answered {response.status}, and not as a gateway does (its software: {software[:80]!a}); {advice}"
    return _make(_STATUSES.get(response.status, ServerError), message, response.status, request_id)


def _make(kind: type[LycheeError], message: str, status: int, request_id: str) -> LycheeError:
    error = kind(message, status=str(status)) if issubclass(kind, ServerError) else kind(message)
    error.request_id = request_id
    return error


def read_document_errors(entries: Sequence[Mapping[str, Any]], indexes: Sequence[int]) -> list[DocumentError]:
    """Return the documents that a gateway could not rank.

    Args:
        entries: The answer's `errors`.
        indexes: The positions of the sent documents in the caller's list.

    Raises:
        LookupError, TypeError, ValueError: They are not what a gateway answers.
    """
    errors = []
    for entry in entries:
        index, message = indexes[entry["index"]], str(entry["message"])
        error: LycheeError
        if entry.get("type") == "invalid_output":
            error = InvalidOutputError(message)
            error.index = index
        elif entry.get("type") == "invalid_input":
            error = InvalidInputError(message, index=index)
        else:  # a model that took others refused this one
            error = RequestRejectedError(message)
        errors.append(DocumentError(index, message, error))
    return errors
