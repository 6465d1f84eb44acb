"""What executes a model, in which precision, and how exact that has to be: as the configurations of a server say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

FLOAT32: Final = "fp32"
UNCHOSEN: Final = "auto"
"""What an export writes into a model's parameter `execution`; `lychee load` replaces it by what it has chosen."""
EXACT_TOLERANCE: Final = 1e-4
"""How far a score may be from the reference's where everything computes in float32, and may move with its batch."""
DEFAULT_ERROR_BUDGET: Final = 0.01
"""How far a score may be from the reference's for the sake of speed, unless the operator says otherwise."""
_EXACT: Final = "exact"
_OPENVINO: Final = "openvino"


@dataclass(frozen=True, slots=True)
class Execution:
    """What executes one model.

    Attributes:
        provider: "cpu", "openvino", "cuda" or "unknown".
        precision: The precision in which it computes: "fp32", "tf32", "bf16" or "fp16"; None where the server does not
            say.
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


def read_execution(config: Mapping[str, Any]) -> Execution:
    """Read a model's configuration as Triton answers it.

    A configuration without a word about it is that of a plain CPU, which computes in float32, unless it names a GPU or
    an accelerator.
    """
    config = config.get("config", config)
    parameters = {name: str(value.get("string_value", "")) for name, value in config.get("parameters", {}).items()}
    named = parameters.get("execution", UNCHOSEN)
    if named != UNCHOSEN:
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
