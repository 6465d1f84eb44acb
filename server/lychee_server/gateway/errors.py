"""Errors of a call as answers of HTTP: one table.

422 means that the JSON has another shape than the documentation says; 400 that the shape is right and a value is not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from lychee_client import (
    ConfigurationError,
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    InvalidOutputError,
    LycheeError,
    ModelNotReadyError,
    ServerError,
    ServerOverloadedError,
)
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.refusals import describe_error
from lychee_server.gateway.shape_problems import describe_shape

RETRY_AFTER_S: Final = 2
MAX_REASON_CHARACTERS: Final = 500

_logger = logging.getLogger(__name__)


class RequestValueError(ConfigurationError):
    """A value of the request cannot be used.

    Attributes:
        param: The name of the field.
        status: The HTTP status of the answer.
        kind: What kind of error it is, for programs.
        errors: The documents that it is about, as the answer has them.
    """

    def __init__(
        self,
        message: str,
        param: str,
        *,
        status: int = 400,
        kind: str = "invalid_request",
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.kind = kind
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Fault:
    """How an error is answered.

    Attributes:
        status: The HTTP status of the answer.
        kind: What kind of error it is, for programs.
        message: What people read, with "{model}" for the model's name; None: the error's own message, which names
            nothing inside.
        retry: Whether the caller is told to come again.
    """

    status: int
    kind: str
    message: str | None = None
    retry: bool = False


# The first class that fits counts.
FAULTS: Final[tuple[tuple[type[LycheeError], Fault], ...]] = (
    (InvalidInputError, Fault(400, "invalid_input")),
    (ConfigurationError, Fault(400, "invalid_request")),
    (TooBusyError, Fault(429, "too_busy", retry=True)),
    (ServerOverloadedError, Fault(429, "too_busy", "the model server's queue is full; try again", retry=True)),
    (ConnectionFailedError, Fault(503, "unavailable", "the model server cannot be reached; try again", retry=True)),
    (
        ModelNotReadyError,
        Fault(503, "unavailable", "the model server is not ready; try again, see /health", retry=True),
    ),
    (
        DeadlineExceededError,
        Fault(504, "timeout", "the call took longer than its timeout_ms; send less, or allow more"),
    ),
    (InvalidOutputError, Fault(502, "invalid_output")),
    (ContractError, Fault(502, "bad_answer", "the model server answered something unexpected; see the gateway's log")),
    (
        InferenceError,
        Fault(502, "model_failed", "{model} of the model server failed; try again, see /health", retry=True),
    ),
    (ServerError, Fault(502, "model_failed", "the model server failed; see the gateway's log under this request's id")),
)
NOTHING_HERE: Final = "nothing is served at this path; see /docs"
OTHER_METHOD: Final = "this path takes another method; see /docs"
INTERNAL: Final = Fault(500, "internal_error", "the gateway failed; the log tells more under this request's id")


def find_fault(error: BaseException) -> Fault:
    """Return how an error is answered."""
    if isinstance(error, RequestValueError):
        return Fault(error.status, error.kind)
    return next((fault for kind, fault in FAULTS if isinstance(error, kind)), INTERNAL)


def install_error_handlers(app: FastAPI) -> None:
    """Have an app answer every error with the same JSON."""
    app.add_exception_handler(LycheeError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_shape)
    app.add_exception_handler(HTTPException, _answer_http)


async def _answer_error(request: Request, error: Exception) -> Response:
    fault = find_fault(error)
    notes = current_notes()
    notes.error_type = type(error).__name__
    if fault is INTERNAL:
        _logger.error("a call failed", exc_info=error)
    elif fault.status >= 500:  # what is to be expected of a server takes one line, that of the request
        notes.reason = " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
    param, errors = (error.param, error.errors) if isinstance(error, RequestValueError) else (None, ())
    if isinstance(error, InvalidInputError):
        param = "query" if str(error).startswith("query") else "documents"
    headers = {}
    if fault.retry:
        headers["retry-after"] = str(error.retry_after_s if isinstance(error, TooBusyError) else RETRY_AFTER_S)
    model = getattr(error, "model_name", None) or "a model"
    message = str(error) if fault.message is None else fault.message.replace("{model}", model)
    return make_error(fault.status, fault.kind, message, param, headers, errors)


async def _answer_shape(request: Request, error: Exception) -> Response:
    """Say what is wrong with the shape."""
    assert isinstance(error, RequestValidationError)
    current_notes().error_type = type(error).__name__
    message, param = describe_shape(error.errors())
    return make_error(422, "invalid_shape", message, param)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kinds = {404: "not_found", 405: "method_not_allowed"}
    messages = {
        404: NOTHING_HERE,
        405: OTHER_METHOD,
        400: "the body cannot be read",
    }
    message = messages.get(error.status_code, str(error.detail))
    kind = kinds.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal_error")
    return make_error(error.status_code, kind, message, None, dict(error.headers or {}))


def make_error(
    status: int,
    kind: str,
    message: str,
    param: str | None,
    headers: dict[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
) -> JSONResponse:
    """Return the answer that every error has, with the documents that it is about."""
    about = {"errors": errors} if errors else {}
    return JSONResponse({**describe_error(status, kind, message, param), **about}, status, headers)
