"""A canary's calls: what its model does not answer, the control's model does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

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

Ask = Callable[[], Awaitable[ServiceAnswer]]


async def ask_canary(canary: Service, ask: Ask, ask_control: Ask) -> tuple[ServiceAnswer, str | None]:
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
        answer = await ask()
    except LycheeError as error:
        return await ask_control(), _name(error)
    for failed in answer.response.errors:
        if not isinstance(failed.error, InvalidInputError):
            return await ask_control(), _name(failed.error)
    return answer, None


def _name(error: LycheeError) -> str:
    if isinstance(error, ModelNotReadyError):
        return "not_ready"
    if isinstance(error, (TooBusyError, ServerOverloadedError)):
        return "busy"
    return "timeout" if isinstance(error, DeadlineExceededError) else "failed"
