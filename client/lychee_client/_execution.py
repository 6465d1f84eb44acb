"""Asks a server what executes its encoders."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from lychee_client._errors import ModelNotReadyError, ServerError, ServerOverloadedError
from lychee_client._operations import ask
from lychee_client.manifest.execution import UNKNOWN, Execution, read_execution
from lychee_client.transports.base import ControlRequest

_ENCODER_SUFFIX: Final = "_encoder"
_logger = logging.getLogger("lychee_client")


async def fetch_executions(models: Iterable[str]) -> dict[str, Execution]:
    """Ask the server how it executes its encoders.

    Args:
        models: Names of all models; only encoders are asked for, because everything else is float32 everywhere.

    Raises:
        ModelNotReadyError: An encoder is not loaded.
        LycheeError: The server does not answer.
    """
    executions = {}
    for name in models:
        if not name.endswith(_ENCODER_SUFFIX):
            continue
        try:
            executions[name] = read_execution(await ask(ControlRequest("config", name)))
        except (ModelNotReadyError, ServerOverloadedError):
            raise
        except ServerError as error:  # a server may keep its configurations to itself
            _logger.info("the server does not tell how it executes %s: %s", name, error)
            executions[name] = UNKNOWN
    return executions
