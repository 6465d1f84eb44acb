"""A canary's calls: what its model does not answer, the control's model does."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from lychee_client import (
    DeadlineExceededError,
    InvalidInputError,
    LycheeError,
    ModelNotReadyError,
    ServerOverloadedError,
)

from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.service import Service
from lychee_server.gateway.service_answer import ServiceAnswer

# Of the time that is left: what the canary does not answer by then, the control has the rest of the time for.
TIME_SHARE: Final = 0.5
REASONS: Final = ("not_ready", "busy", "timeout", "failed")

_logger = logging.getLogger(__name__)


class Answered(Protocol):
    """What a model answered."""

    @property
    def answer(self) -> ServiceAnswer:
        """The answer."""


T = TypeVar("T", bound=Answered)


async def ask_canary(
    canary: Service, ask: Callable[[], Awaitable[T]], ask_control: Callable[[], Awaitable[T]]
) -> tuple[T, str | None]:
    """Return the canary's answer, or the control's and why.

    Whatever fails, the control says what the caller sees: a call that is the caller's mistake fails there as well.

    Args:
        canary: The service of the canary's model.
        ask: Asks it, in its share of the time.
        ask_control: Asks the control's model, with the control's settings.

    Raises:
        LycheeError: The control fails as well.
    """
    if canary.health.state != "ready":
        return await ask_control(), "not_ready"
    try:
        answered = await ask()
    except Exception as error:
        if not isinstance(error, LycheeError):
            _logger.exception("a call to the canary's model failed")
        return await ask_control(), _name(error)
    for failed in answered.answer.response.errors:
        if not isinstance(failed.error, InvalidInputError):
            return await ask_control(), _name(failed.error)
    return answered, None


def _name(error: Exception) -> str:
    if isinstance(error, ModelNotReadyError):
        return "not_ready"
    if isinstance(error, (TooBusyError, ServerOverloadedError)):
        return "busy"
    return "timeout" if isinstance(error, DeadlineExceededError) else "failed"
