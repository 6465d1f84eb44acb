"""HTTP: to Triton's KServe API, with tensors as binary data behind the JSON, and to a gateway's REST API.

Source: https://github.com/triton-inference-server/server/blob/r24.10/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from tritonclient.utils import np_to_triton_dtype

from lychee_client._errors import (
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    InferenceError,
    LycheeError,
    RequestRejectedError,
    ServerError,
)
from lychee_client.transports.base import (
    Action,
    Ambiguity,
    ControlRequest,
    InferRequest,
    InferResponse,
    JsonRequest,
    JsonResponse,
    Request,
    Tensor,
    TransportError,
)
from lychee_client.transports.connection import Connection
from lychee_client.transports.flights import LINGER_S, Answer, Flights
from lychee_client.transports.shared_memory import Slot
from lychee_client.transports.tensors import place_tensors, queue_timeout_us, release_slots, to_bytes, to_tensor

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
REQUEST_ID: Final = "X-Request-Id"
DEFAULT_KEEPALIVE_S: Final = 15.0
_FAREWELL_S: Final = 1.0
# The translation table. What is not in it is a ServerError.
_ERRORS: Final[dict[int, type[LycheeError] | Ambiguity]] = {
    400: Ambiguity.REJECTED_OR_NOT_READY,
    404: Ambiguity.REJECTED_OR_NOT_READY,
    413: RequestRejectedError,
    429: Ambiguity.OVERLOADED_OR_GONE,
    499: ConnectionFailedError,
    500: InferenceError,
    502: ConnectionFailedError,
    503: Ambiguity.OVERLOADED_OR_GONE,
    504: DeadlineExceededError,
}
# Method and path; {name} is the request's, {version} a part of the path or nothing.
_CONTROL: Final[dict[Action, tuple[str, str]]] = {
    "live": ("GET", "/v2/health/live"),
    "ready": ("GET", "/v2/health/ready"),
    "model_ready": ("GET", "/v2/models/{name}{version}/ready"),
    "metadata": ("GET", "/v2"),
    "index": ("POST", "/v2/repository/index"),
    "config": ("GET", "/v2/models/{name}{version}/config"),
    "statistics": ("GET", "/v2/models/stats"),
    "register_region": ("POST", "/v2/systemsharedmemory/region/{name}/register"),
    "unregister_region": ("POST", "/v2/systemsharedmemory/region/{name}/unregister"),
}
_READINESS: Final = frozenset({"live", "ready", "model_ready"})


class HttpTransport:
    """A pool of connections to one server, served by an event loop in a thread of its own. See Transport.

    No request to Triton is cut: it would compute it to the end all the same, and it would be out of sight. A gateway
    gives up what its caller gave up.

    Args:
        connection: The server to connect to.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pool = connection.shared_memory
        self._base_url = f"{'http' if connection.tls is None else 'https'}://{connection.address}{connection.path}"
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None
        self._flights = Flights(self._begin, lambda: True)  # what can be cut: see _begin

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        return self._flights.send(request, timeout_s)

    def close(self, farewell: Request | None = None) -> None:
        """See Transport."""
        idle = self._flights.count == 0
        self._flights.close(self._disconnect, farewell)
        if self._thread is not None and (idle or farewell is not None):
            self._thread.join(_FAREWELL_S)

    def _disconnect(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._shut_down(), loop)

    def _begin(self, request: Request, request_id: str, timeout_s: float | None, answer: Answer) -> None:
        slots = place_tensors(self._pool, request)
        flight = self._fly(request, request_id, timeout_s, slots, answer)
        task = asyncio.run_coroutine_threadsafe(flight, self._start())
        if isinstance(request, JsonRequest):
            cut = TransportError(ConnectionFailedError, None, "cancelled", request_id)  # nobody takes it
            task.add_done_callback(lambda task: self._flights.land(answer, cut) if task.cancelled() else None)
            answer.cut = task.cancel

    async def _fly(
        self, request: Request, request_id: str, timeout_s: float | None, slots: dict[str, Slot], answer: Answer
    ) -> None:
        outcome: object
        try:
            outcome = await self._exchange(request, request_id, timeout_s, slots)
        except Exception as error:  # to be raised where the answer is waited for
            outcome = error
        release_slots(self._pool, request, slots, outcome)
        self._flights.land(answer, outcome)

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name="lychee-http", daemon=True)
                self._thread.start()
            return self._loop

    async def _shut_down(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # the transports of the connections close one turn of the loop later
        asyncio.get_running_loop().stop()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connection = self._connection
            connector = aiohttp.TCPConnector(
                limit=0,  # the driver limits what is in flight
                keepalive_timeout=connection.keepalive_s or DEFAULT_KEEPALIVE_S,
                ssl=True if connection.tls is None else connection.tls.ssl_context(),
                resolver=None if connection.ip is None else _OneAddress(connection.ip),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                # Compressing the tokenizer takes Triton 90 ms more than sending it, and embeddings hardly shrink.
                headers={"Accept-Encoding": "identity", **connection.headers},
                timeout=aiohttp.ClientTimeout(),
            )
        return self._session

    async def _exchange(
        self, request: Request, request_id: str, timeout_s: float | None, slots: Mapping[str, Slot]
    ) -> Any:
        method, path, headers, body = _to_http(request, request_id, timeout_s, slots)
        if not isinstance(request, JsonRequest):
            headers = {**self._connection.triton_headers, **headers}
        try:
            async with self._open_session().request(
                method,
                self._base_url + path,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None if timeout_s is None else timeout_s + LINGER_S),
                allow_redirects=False,
            ) as response:
                content = await response.read()
                status, answered = response.status, response.headers
        except asyncio.TimeoutError as error:  # TimeoutError itself from Python 3.11 on
            raise TransportError(DeadlineExceededError, None, "timed out", request_id) from error
        except (aiohttp.ClientError, OSError) as error:
            cause = getattr(error, "os_error", error)  # without aiohttp's own sentence, which speaks of TLS in any case
            failure = TransportError(ConnectionFailedError, None, str(cause) or repr(cause), request_id)
            failure.unsent = isinstance(error, aiohttp.ClientConnectorError)
            raise failure from error
        if isinstance(request, JsonRequest):
            return _read_answer(request, JsonResponse(status, _maybe_json(content), answered), request_id)
        if isinstance(request, ControlRequest) and request.action in _READINESS:
            return {"ready": status == 200}
        if status != 200:
            kind = _ERRORS.get(status, ServerError)
            raise TransportError(kind, str(status), _error_details(content), request_id)
        if isinstance(request, InferRequest):
            return _from_body(request.model_name, content, answered.get(HEADER_LENGTH))
        answer = _parse_json(request.action, content or b"{}")
        return answer if isinstance(answer, dict) else {"models": answer}


class _OneAddress(AbstractResolver):
    """Finds every host at one address."""

    def __init__(self, ip: str) -> None:
        self._ip = ip

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See AbstractResolver."""
        family = socket.AF_INET6 if ":" in self._ip else socket.AF_INET
        return [
            ResolveResult(hostname=host, host=self._ip, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
        ]

    async def close(self) -> None:
        """See AbstractResolver."""


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _to_http(
    request: Request, request_id: str, timeout_s: float | None, slots: Mapping[str, Slot]
) -> tuple[str, str, Mapping[str, str], bytes | None]:
    """Return method, path, headers and body."""
    if isinstance(request, InferRequest):
        body, length = to_body(request, request_id, timeout_s, slots)
        headers = {**request.headers, HEADER_LENGTH: str(length), "Content-Type": "application/octet-stream"}
        return "POST", f"/v2/models/{request.model_name}{_version_path(request)}/infer", headers, body
    if isinstance(request, JsonRequest):
        headers = {**request.headers, REQUEST_ID: request_id, "Content-Type": "application/json"}
        return request.method, request.path, headers, request.body
    method, path = _CONTROL[request.action]
    data = json.dumps(dict(request.parameters)).encode() if method == "POST" else None
    return method, path.format(name=request.name, version=_version_path(request)), {}, data


def _version_path(request: InferRequest | ControlRequest) -> str:
    return f"/versions/{request.model_version}" if request.model_version else ""


def to_body(
    request: InferRequest, request_id: str, timeout_s: float | None, slots: Mapping[str, Slot]
) -> tuple[bytes, int]:
    """Return the body of a request, and how many of its bytes are JSON."""
    parameters: dict[str, int] = {}
    if timeout_s is not None:
        parameters["timeout"] = queue_timeout_us(timeout_s)
    contents = {name: to_bytes(tensor) for name, tensor in request.inputs.items() if name not in slots}
    header = {
        "id": request_id,
        "parameters": parameters,
        "inputs": [
            {
                "name": name,
                "shape": tensor.shape,
                "datatype": np_to_triton_dtype(tensor.dtype),
                "parameters": _reference(slots[name]) if name in slots else {"binary_data_size": len(contents[name])},
            }
            for name, tensor in request.inputs.items()
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in request.outputs],
    }
    data = json.dumps(header).encode()
    return b"".join([data, *contents.values()]), len(data)


def _reference(slot: Slot) -> dict[str, str | int]:
    return {
        "shared_memory_region": slot.region,
        "shared_memory_offset": slot.offset,
        "shared_memory_byte_size": slot.size_bytes,
    }


def _from_body(model_name: str, content: bytes, header_length: str | None) -> InferResponse:
    """Return the tensors of a response.

    Raises:
        ContractError: It is not what the protocol says.
    """
    try:
        length = int(header_length) if header_length else len(content)
        outputs: dict[str, Tensor] = {}
        start = length
        for output in _parse_json(model_name, content[:length])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            data = memoryview(content)[start : start + size]
            outputs[output["name"]] = to_tensor(model_name, output["name"], output["datatype"], output["shape"], data)
            start += size
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(
            f"{model_name} answered {len(content)} bytes that are not KServe's binary protocol ({error!r}); "
            "check that the port is Triton's HTTP port (8000 by default)",
            model_name=model_name,
        ) from error
    return InferResponse(outputs)


def _parse_json(source: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ContractError(
            f"{source} answered {content[:40]!r}, expected JSON; check that the port is Triton's HTTP port",
            model_name=source,
        ) from error


def _read_answer(request: JsonRequest, response: JsonResponse, request_id: str) -> JsonResponse:
    """Return a response that is one.

    Raises:
        TransportError: It is an error of HTTP, which the request does not take.
    """
    if request.any_status or response.status == 200:
        return response
    failure = TransportError(ServerError, str(response.status), "", request_id)
    failure.response = response
    raise failure


def _maybe_json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _error_details(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (KeyError, TypeError, ValueError):
        return content[:200].decode("utf-8", "replace") or "no details"
