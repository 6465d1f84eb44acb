"""A route that takes every dialect: the request is translated before it is checked, answers and errors afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi.exceptions import HTTPException, RequestValidationError
from lychee_client import LycheeError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.dialects.choice import choose
from lychee_server.gateway.dialects.dialect import Dialect
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.json_body import JsonRequest, JsonRoute

ONE: Final = "[one]"
PAIRS: Final = "[pairs]"
TOLD: Final = ("warnings", "ranking_id", "experiment")
TAGS: Final = (ONE, PAIRS)  # of the two requests that a score's route checks
_SCOPE_KEY: Final = "lychee.spoken"
_OWN_HEADERS: Final = frozenset({"content-length", "content-type"})


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A dialect, and what was sent in it."""

    dialect: Dialect
    sent: Mapping[str, Any]


class _UntranslatableError(HTTPException):
    """Carries an error past FastAPI, which takes any other exception for a body that cannot be read."""

    def __init__(self, error: RequestValueError) -> None:
        super().__init__(error.status)
        self.error = error


class _DialectRequest(JsonRequest):
    async def json(self) -> Any:
        """Return the gateway's own request."""
        sent = await super().json()
        dialect = choose(self.scope["route"].path, sent, self.headers) if isinstance(sent, dict) else None
        if dialect is None:
            return sent
        self.scope[_SCOPE_KEY] = _Spoken(dialect, sent)
        current_notes().dialect = dialect.name
        try:
            return dialect.translate(sent)
        except RequestValueError as error:
            raise _UntranslatableError(error) from error


class DialectRoute(JsonRoute):
    """A route whose body may be in any dialect."""

    request_class = _DialectRequest

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def handle_dialect(request: Request) -> Response:
            try:
                return await handle(request)
            except (LycheeError, RequestValidationError, _UntranslatableError) as raised:
                spoken = request.scope.get(_SCOPE_KEY)
                error = _plain(raised)
                if spoken is None:
                    raise error from None
                return _translate_error(spoken, await _answer_error(request, error))

        return handle_dialect


def speak(request: Request, answer: Any) -> Any:
    """Return an answer as the sender of the request reads it, and what no dialect has where there is room for it."""
    spoken: _Spoken | None = request.scope.get(_SCOPE_KEY)
    if spoken is None:
        return answer
    spoken_answer = spoken.dialect.answer(answer, spoken.sent)
    if isinstance(spoken_answer, dict):
        told = {name: getattr(answer, name, None) for name in TOLD}
        spoken_answer |= {name: value for name, value in told.items() if value}
    return spoken_answer


def _plain(raised: Exception) -> Exception:
    """Return an error as the app knows it: without a wrapper, and without tags in the places of fields."""
    if isinstance(raised, _UntranslatableError):
        return raised.error
    if isinstance(raised, RequestValidationError):
        problems = [
            {**problem, "loc": tuple(part for part in problem["loc"] if part not in TAGS)}
            for problem in raised.errors()
        ]
        return RequestValidationError(problems, body=raised.body)
    return raised


async def _answer_error(request: Request, error: Exception) -> Response:
    """Return what the app answers to an error."""
    handlers = request.app.exception_handlers
    handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    response: Response = await handler(request, error)
    return response


def _translate_error(spoken: _Spoken, response: Response) -> Response:
    error = spoken.dialect.translate_error(json.loads(bytes(response.body)), response.status_code, spoken.sent)
    headers = {name: value for name, value in response.headers.items() if name not in _OWN_HEADERS}
    return JSONResponse(error, response.status_code, headers)
