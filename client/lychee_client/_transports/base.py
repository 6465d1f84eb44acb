"""What every transport offers, in terms of no protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

Tensor: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request to one model.

    Attributes:
        model_name: Model or ensemble.
        inputs: Tensors by name, batch axis included.
        outputs: Names of the tensors to send back.
    """

    model_name: str
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InferResponse:
    """The answer to one request. A string tensor has dtype object and holds bytes."""

    outputs: Mapping[str, Tensor]


class PendingResponse(Protocol):
    """A request that has been sent."""

    def result(self) -> InferResponse:
        """Wait for the answer.

        Raises:
            LycheeError: The request failed; which subclass says how.
        """

    def cancel(self) -> None:
        """Give up; tells the server to stop working on it. Does nothing if the answer is here."""


class Transport(Protocol):
    """A connection to one server. Safe to use from several threads."""

    def send(self, request: InferRequest, timeout_s: float | None) -> PendingResponse:
        """Send without waiting for the answer.

        Args:
            request: What to compute.
            timeout_s: Seconds until it counts as failed. None waits forever.
        """

    def is_live(self, timeout_s: float | None) -> bool:
        """Say whether the server answers at all."""

    def is_model_ready(self, model_name: str, timeout_s: float | None) -> bool:
        """Say whether the server answers and has loaded the model."""

    def close(self) -> None:
        """Release the connection; requests in flight fail."""
