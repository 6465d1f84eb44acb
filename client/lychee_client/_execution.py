"""What executes the server's encoders, and in which precision: its configurations say so."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lychee_client._errors import ModelNotReadyError, ServerError, ServerOverloadedError
from lychee_client._operations import ask
from lychee_client.transports.base import ControlRequest

FLOAT32: Final = "fp32"
DEFAULT_ERROR_BUDGET: Final = 0.01
_UNCHOSEN: Final = "auto"
_EXACT: Final = "exact"
_OPENVINO: Final = "openvino"
_ENCODER_SUFFIX: Final = "_encoder"
_logger = logging.getLogger("lychee_client")


@dataclass(frozen=True, slots=True)
class Execution:
    """What executes one model.

    Attributes:
        provider: "cpu", "openvino", "cuda" or "unknown".
        precision: The precision in which it computes, "fp32" or "bf16"; None where the server does not say.
        reason: Why the server chose it; empty where it did not choose.
        error_budget: How far a score may be from the reference's for it.
    """

    provider: str
    precision: str | None
    reason: str = ""
    error_budget: float = DEFAULT_ERROR_BUDGET

    def __str__(self) -> str:
        """Write "openvino bf16"."""
        return f"{self.provider} {self.precision or 'in a precision that the server does not tell'}"


UNKNOWN: Final = Execution("unknown", None)


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


def read_execution(config: Mapping[str, Any]) -> Execution:
    """Read a model's configuration as Triton answers it.

    A configuration without a word about it is that of a plain CPU, which computes in float32, unless it names a GPU or
    an accelerator.
    """
    config = config.get("config", config)
    parameters = {name: str(value.get("string_value", "")) for name, value in config.get("parameters", {}).items()}
    named = parameters.get("execution", _UNCHOSEN)
    if named != _UNCHOSEN:
        provider, _, precision = named.partition("-")
        budget = parameters.get("error_budget", "")
        return Execution(provider, precision or None, parameters.get("execution_reason", ""), _read_budget(budget))
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        precision = accelerator.get("parameters", {}).get("precision")
        return Execution(accelerator.get("name", _OPENVINO), FLOAT32 if precision == FLOAT32 else None)
    kinds = {group.get("kind", "KIND_AUTO") for group in config.get("instance_group", [])}
    if kinds == {"KIND_CPU"}:
        return Execution("cpu", FLOAT32)
    return Execution("cuda" if kinds == {"KIND_GPU"} else "unknown", None)


def _read_budget(text: str) -> float:
    if text == _EXACT:
        return 0.0
    try:
        return float(text)
    except ValueError:
        return DEFAULT_ERROR_BUDGET
