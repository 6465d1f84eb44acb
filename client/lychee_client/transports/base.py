"""What every transport offers, in terms of no protocol."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy.typing as npt

from lychee_client._errors import LycheeError
from lychee_client.tracing.spans import RequestTrace

Tensor: TypeAlias = npt.NDArray[Any]
Action: TypeAlias = Literal[
    "live", "ready", "model_ready", "metadata", "index", "config", "statistics", "register_region", "unregister_region"
]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request to one model.

    Attributes:
        model_name: The name of the model or ensemble.
        inputs: The input tensors by name, batch axis included.
        outputs: The names of the tensors to send back.
        inline: Whether the tensors travel in the request itself, even where there is shared memory.
        request_id: The id under which the server shall know the request. With None the transport makes one up.
        model_version: The version of the model; a server that has another one refuses. Empty takes the newest.
        headers: The headers of this request alone, or its metadata in gRPC.
        trace: What it belongs to, where the call is traced.
    """

    model_name: str
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    inline: bool = False
    request_id: str | None = None
    model_version: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    trace: RequestTrace | None = field(default=None, repr=False)

    @property
    def rows(self) -> int:
        """The size of the batch axis; 1 without inputs."""
        return next((len(tensor) for tensor in self.inputs.values()), 1)


@dataclass(frozen=True, slots=True)
class InferResponse:
    """The answer to one request. A string tensor has dtype object and holds bytes."""

    outputs: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """A question about the server, or an order to it. The answer is a JSON object.

    Attributes:
        action: What is asked or ordered. "live", "ready" and "model_ready" answer {"ready": bool}; the others what
            Triton's HTTP API answers, integers possibly as strings.
        name: The name of the model or region; empty where the action needs none.
        parameters: The parameters of the order; empty for a question.
        request_id: The id that errors carry; the protocols have no place for it. With None the transport makes one up.
        model_version: The version of the model that "model_ready" and "config" are about. Empty takes the newest.
    """

    action: Action
    name: str = ""
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    request_id: str | None = None
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class JsonRequest:
    """One request to the REST API of a gateway; only HTTP carries it. The answer is a JsonResponse.

    Attributes:
        method: The method of HTTP.
        path: The path below the URL.
        body: The JSON that is sent; None sends none.
        headers: The headers of this request alone. They may hold a key, and the body the caller's content: neither is
            shown.
        any_status: Whether an error of HTTP is an answer as well.
        request_id: The id under which the server shall know the request. With None the transport makes one up.
        once: Whether it has an effect, and must not be sent again once it may have arrived.
        trace: What it belongs to, where the call is traced.
    """

    method: Literal["GET", "POST"]
    path: str
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    any_status: bool = False
    request_id: str | None = None
    once: bool = False
    trace: RequestTrace | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """The answer to a JsonRequest.

    Attributes:
        status: The status of HTTP.
        content: What the body holds; None where it is no JSON.
        headers: The headers, whose names may be written in any case.
    """

    status: int
    content: Any
    headers: Mapping[str, str]

    @property
    def retry_after_s(self) -> float:
        """The seconds after which the caller is told to come again; 0 where it is not told."""
        value = self.headers.get("Retry-After", "")
        return float(value) if value.isascii() and value.isdecimal() else 0.0


Request: TypeAlias = InferRequest | ControlRequest | JsonRequest


class Ambiguity(enum.Enum):
    """What a status leaves open; a probe decides."""

    OVERLOADED_OR_GONE = enum.auto()
    REJECTED_OR_NOT_READY = enum.auto()


class TransportError(Exception):
    """A request failed. The core makes a LycheeError of it.

    Attributes:
        kind: The class of error, or the doubt, to which the transport's table maps the status.
        status: The protocol's own status, or None where no server answered.
        details: What the server or the operating system said.
        request_id: The id under which the server's log knows the request.
        is_connected: A function that says whether the connection still stands, where a broken one may be the cause;
            otherwise None.
        shared_memory: Whether the server refused the request, and some of its tensors were not in it but in shared
            memory.
        response: What answered a JsonRequest with an error; None where nothing did.
        unsent: Whether the request certainly never reached a server.
    """

    def __init__(self, kind: type[LycheeError] | Ambiguity, status: str | None, details: str, request_id: str) -> None:
        super().__init__(details)
        self.is_connected: Callable[[], bool] | None = None
        self.shared_memory = False
        self.response: JsonResponse | None = None
        self.unsent = False
        self.kind = kind
        self.status = status
        self.details = details
        self.request_id = request_id


class Transport(Protocol):
    """A connection to one server, made at the first request. Safe to use from several threads and event loops.

    Nothing here blocks, so one transport serves the synchronous and the asynchronous client alike.
    """

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """Send a request.

        Args:
            request: What to compute, ask or do.
            timeout_s: Seconds that the request may take, for the server to know. None sets no limit. Whoever waits
                keeps to it: a server that does not survive that a request is cut is let finish it.

        Returns:
            An InferResponse, the JSON object that answers a ControlRequest, or a JsonResponse; or a TransportError or
            ContractError.
            Cancelling it tells the server to stop working on the request, if the server survives that.
        """

    def close(self, farewell: Request | None = None) -> None:
        """Release the connection, at the latest when the server has finished what it has; no answer comes any more.

        Args:
            farewell: A last request, sent after that.
        """
