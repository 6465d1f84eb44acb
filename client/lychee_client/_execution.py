"""Asks a server what executes its encoders."""

from __future__ import annotations

import logging
from typing import Final

from lychee_client._errors import ModelNotReadyError, ServerError, ServerOverloadedError
from lychee_client._operations import ask
from lychee_client.manifest.execution import UNKNOWN, Execution, read_execution
from lychee_client.manifest.manifest import Manifest
from lychee_client.transports.base import ControlRequest

_ENCODER_SUFFIX: Final = "_encoder"
_logger = logging.getLogger("lychee_client")


async def fetch_executions(manifest: Manifest) -> dict[str, Execution]:
    """Ask the server how it executes a model's encoders; everything else is float32 everywhere.

    Raises:
        ModelNotReadyError: An encoder is not loaded, or the server has another model by now.
        LycheeError: The server does not answer.
    """
    executions = {}
    for name in manifest.max_batch_size:
        if not name.endswith(_ENCODER_SUFFIX):
            continue
        try:
            executions[name] = read_execution(
                await ask(ControlRequest("config", name, model_version=manifest.model_version))
            )
        except (ModelNotReadyError, ServerOverloadedError):
            raise
        except ServerError as error:  # a server may keep its configurations to itself
            _logger.info("the server does not tell how it executes %s: %s", name, error)
            executions[name] = UNKNOWN
    return executions
