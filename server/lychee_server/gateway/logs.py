"""JSON lines on standard output, and errors once more on a stream of their own.

A line holds what the gateway says, never what its callers sent: messages of foreign exceptions may quote their input,
so a traceback shows where and of which type, and the message only of our own errors and the operating system's.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from lychee_client import ConfigurationError, InvalidInputError, LycheeError, LycheeWarning

from lychee_server.errors import LycheeServerError, SettingsError
from lychee_server.gateway.request_ids import current_request_id
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.tracing.current import current_span
from lychee_server.log_files import ErrorLog, most_bytes, rotate_own

OWN_LOGGERS: Final = ("lychee_server", "lychee_client", "uvicorn")
UVICORN_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
TRUSTED: Final = (LycheeError, LycheeServerError, OSError)
QUOTING: Final = (InvalidInputError, ConfigurationError)  # their messages show the value that was sent
MAX_FRAMES: Final = 30
STANDARD_STREAMS: Final = (1, 2)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line. `extra={"fields": {...}}` adds fields.

    Args:
        content: Whether to write the messages of foreign exceptions too; they may quote texts of callers.
    """

    def __init__(self, *, content: bool = False) -> None:
        super().__init__()
        self._content = content

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {
            "time": time,
            "level": record.levelname,
            "logger": record.name,
            "message": self._message(record),
        }
        request_id = current_request_id()
        if request_id is not None:
            line["request_id"] = request_id
        ids = current_span().ids
        if ids is not None:
            line["trace_id"], line["span_id"] = ids
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = describe_exception(record.exc_info[1], content=self._content)
        return json.dumps(line, ensure_ascii=False, default=str)

    def _message(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name == "asyncio" and not self._content:  # further lines show the task with its arguments
            return message.split("\n", 1)[0]
        return message


def describe_exception(error: BaseException, *, content: bool = False) -> str:
    """Return traceback and type of an exception and of what led to it.

    Args:
        error: The exception to describe.
        content: Whether to include every message; otherwise only those that cannot quote what a caller sent.
    """
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__, limit=-MAX_FRAMES))
        trusted = content or (isinstance(current, TRUSTED) and not isinstance(current, QUOTING))
        name = f"{type(current).__module__}.{type(current).__qualname__}"
        parts.append(f"{frames}{name}{f': {current}' if trusted else ''}")
        for inner in getattr(current, "exceptions", ()):  # of an exception group
            parts.append(f"  in it: {describe_exception(inner, content=content)}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\ncaused by:\n".join(parts)


class OwnLog(logging.StreamHandler[TextIO]):
    """Writes standard output, which is a file that stays small.

    Args:
        path: The file.
        most: How many bytes it may have.
    """

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(sys.stdout)
        self._path = path
        self._most = most

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        rotate_own(self._path, STANDARD_STREAMS, self._most)
        super().emit(record)


def configure_logging(settings: GatewaySettings, log_path: Path | None = None) -> None:
    """Send every logger of this process through the formatter.

    The level of the settings is that of the gateway, of the client and of uvicorn; other packages log their warnings
    at most, since at lower levels some of them write down what they are given.

    Args:
        settings: The settings of the gateway.
        log_path: The file that standard output is, to be kept small here; None: another program sees to that.

    Raises:
        SettingsError: The error log cannot be opened.
    """
    formatter = JsonFormatter(content=settings.log_content)
    most = most_bytes()
    output = logging.StreamHandler(sys.stdout) if log_path is None else OwnLog(log_path, most)
    errors = _error_handler(settings, most)
    errors.setLevel(logging.ERROR)
    for handler in (output, errors):
        handler.setFormatter(formatter)
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.basicConfig(handlers=[output, errors], level=max(level, logging.WARNING), force=True)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
    for name in UVICORN_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", category=LycheeWarning)  # they are in the answer, and they quote instructions


def _error_handler(settings: GatewaySettings, most: int) -> logging.Handler:
    if settings.error_log is None:
        return logging.StreamHandler(sys.stderr)
    try:
        return ErrorLog(settings.error_log, most)
    except OSError as error:
        raise SettingsError(
            f"--error-log is {settings.error_log}, which cannot be opened ({error.strerror}); expected a file in "
            "a folder that exists and that this user may write"
        ) from error
