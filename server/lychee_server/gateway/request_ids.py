"""The id of a request: taken from the caller where it is well-formed, made here otherwise, known to every log line."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

REQUEST_ID_HEADER: Final = "x-request-id"

_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CURRENT: ContextVar[str | None] = ContextVar("lychee_gateway_request_id", default=None)


def make_request_id() -> str:
    """Return a new id: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def accept_request_id(value: str | None) -> str:
    """Return the caller's id if it is 1 to 128 characters of A-Z a-z 0-9 . _ -, otherwise a new one."""
    return value if value is not None and _WELL_FORMED.fullmatch(value) else make_request_id()


def current_request_id() -> str | None:
    """Return the id of the request that is being answered here, or None outside of one."""
    return _CURRENT.get()


@contextmanager
def use_request_id(request_id: str) -> Iterator[None]:
    """Make this the current id for the body."""
    token = _CURRENT.set(request_id)
    try:
        yield
    finally:
        _CURRENT.reset(token)
