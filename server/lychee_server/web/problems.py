"""What goes wrong, told on the page in the user's language with what to do."""

from __future__ import annotations

import logging
from typing import Final

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
    ServerOverloadedError,
)

from lychee_server.gateway.limits import TooBusyError
from lychee_server.web.language import Words
from lychee_server.web.markup import render

# The first class that fits names the text.
ERROR_KEYS: Final[tuple[tuple[type[LycheeError], str], ...]] = (
    (TooBusyError, "page.error_busy"),
    (ServerOverloadedError, "page.error_overloaded"),
    (ConnectionFailedError, "page.error_away"),
    (ModelNotReadyError, "page.error_not_ready"),
    (DeadlineExceededError, "page.error_deadline"),
    (InferenceError, "page.error_inference"),
    (InvalidOutputError, "page.error_inference"),
    (ContractError, "page.error_contract"),
    (InvalidInputError, "page.error_input"),
    (ConfigurationError, "page.error_input"),
)
UNKNOWN_KEY: Final = "page.error_unknown"

_log = logging.getLogger(__name__)


class PageError(Exception):
    """The user has to change something; nothing was sent.

    Args:
        key: The name of the text that says what to change.
        values: What its {placeholders} stand for.
    """

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(key)
        self.key = key
        self.values = values


def render_alert(words: Words, error: Exception) -> str:
    """Return HTML that tells about an error, in both languages. What nobody expected is logged with its traceback."""
    if isinstance(error, PageError):
        return render("alert", words, key=error.key, values=error.values, detail="")
    for kind, key in ERROR_KEYS:
        if isinstance(error, kind):
            wait_s = max(1, round(getattr(error, "retry_after_s", 1)))
            return render("alert", words, key=key, values={"wait_s": wait_s}, detail=str(error))
    if isinstance(error, LycheeError):
        return render("alert", words, key=UNKNOWN_KEY, values={}, detail=str(error))
    _log.error("a handler of the page failed", exc_info=error)
    return render("alert", words, key=UNKNOWN_KEY, values={}, detail="")
