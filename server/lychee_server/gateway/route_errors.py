"""The errors that the routes answer, as the API's documentation shows them."""

from __future__ import annotations

from typing import Any, Final

from lychee_server.gateway.answer_schemas import ErrorAnswer

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": ErrorAnswer, "description": "A value cannot be used."},
    401: {"model": ErrorAnswer, "description": "The API key is missing or wrong."},
    404: {"model": ErrorAnswer, "description": "Another model is served, and the gateway refuses other names."},
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    422: {"model": ErrorAnswer, "description": "The JSON has another shape."},
    429: {"model": ErrorAnswer, "description": "Too many calls; see the header Retry-After."},
    502: {"model": ErrorAnswer, "description": "The model server failed."},
    503: {"model": ErrorAnswer, "description": "The model server is not there; see the header Retry-After."},
    504: {"model": ErrorAnswer, "description": "The call took longer than its timeout."},
}
