"""The last errors of the gateway's log, kept in memory for whoever looks at its status."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.logs import describe_exception
from lychee_server.gateway.request_ids import current_request_id
from lychee_server.gateway.status.answer import LoggedError

KEPT: Final = 20
MAX_CHARACTERS: Final = 500
ACCESS_LOGGER: Final = "lychee_server.access"
STATE_LOGGER: Final = "lychee_server.gateway"  # tells of changes between ready and not ready, as warnings


class RecentErrors(logging.Handler):
    """Keeps the last errors of each model, and the last changes of its state.

    What it keeps is what the log has without `--log-content`, and less: of a request its route, status and reason, and
    of an exception its type, with the message only where that is our own.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: dict[str | None, deque[LoggedError]] = {}  # by model, so that none pushes out another's

    def latest(self, model: str) -> list[LoggedError]:
        """Return what is kept of one model, and of the gateway as a whole, newest first."""
        found = [error for about in (model, None) for error in reversed(self._kept.get(about, deque()).copy())]
        return sorted(found, key=lambda error: -error.time)[:KEPT]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of everything that this process logs."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if record.levelno < logging.ERROR and record.name != STATE_LOGGER:
            return
        fields: dict[str, Any] = getattr(record, "fields", {})
        detail = fields.get("reason") or fields.get("error_type")
        if record.exc_info and record.exc_info[1] is not None:
            detail = describe_exception(record.exc_info[1]).rsplit("\n", 1)[-1]
        model = fields.get("served") or current_notes().served
        self._kept.setdefault(model, deque(maxlen=KEPT)).append(
            LoggedError(
                time=record.created,
                level=record.levelname,
                logger=record.name,
                message=_cut(record.getMessage().split("\n", 1)[0]),
                request_id=current_request_id(),
                model=model,
                route=fields.get("route"),
                status=fields.get("status"),
                detail=None if detail is None else _cut(str(detail)),
            )
        )


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"
