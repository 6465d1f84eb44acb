"""What the backend's file needs of Triton, so that it can run in a process of ours as it runs in a stub."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Request", "install"]

MODULE: Final = "triton_python_backend_utils"


@dataclass(frozen=True)
class Tensor:
    """An array under a name."""

    name: str
    array: Any

    def as_numpy(self) -> Any:
        """Return the array."""
        return self.array


@dataclass(frozen=True)
class Request:
    """The arrays of one request, and the outputs that it wants."""

    inputs: dict[str, Any]
    outputs: tuple[str, ...]

    def requested_output_names(self) -> list[str]:
        """Return the names of the outputs that it wants."""
        return list(self.outputs)


@dataclass(frozen=True)
class Response:
    """The outputs, or an error."""

    output_tensors: list[Tensor]
    error: Error | None = None


@dataclass(frozen=True)
class Error:
    """A message with one of Triton's codes."""

    message: str
    code: int = 1
    INTERNAL = 1
    INVALID_ARG = 3


class ModelError(Exception):
    """What the backend raises when it cannot load a model."""


class Logger:
    """Says nothing."""

    @staticmethod
    def log_info(message: str) -> None:
        """Ignore it."""

    log_warn = log_info


class MetricFamily:
    """Keeps the labels of what the backend publishes."""

    GAUGE = 1
    published: list[dict[str, str]] = []  # noqa: RUF012 - one list for the process, read by the probe

    def __init__(self, name: str, description: str, kind: int) -> None:
        """Take what Triton's takes."""

    def Metric(self, labels: dict[str, str]) -> Any:  # noqa: N802 - Triton's name
        """Keep the labels."""
        self.published.append(labels)
        return types.SimpleNamespace(set=lambda value: None)


def install() -> None:
    """Let `import triton_python_backend_utils` find this."""
    module: Any = types.ModuleType(MODULE)
    module.Tensor = Tensor
    module.InferenceResponse = Response
    module.TritonError = Error
    module.TritonModelException = ModelError
    module.Logger = Logger
    module.MetricFamily = MetricFamily
    module.get_input_tensor_by_name = lambda request, name: (
        Tensor(name, request.inputs[name]) if name in request.inputs else None
    )
    sys.modules[MODULE] = module
