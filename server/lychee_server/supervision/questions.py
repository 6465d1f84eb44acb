"""What Triton and gateway are asked to see whether they still work: a real inference, a sign of life."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from lychee_client.transports.base import InferRequest, Tensor
from lychee_client.transports.http import HEADER_LENGTH, to_body
from tritonclient.utils import triton_to_np_dtype

from lychee_server.local_http import exchange, fetch, reachable_host
from lychee_server.supervision.watch import MOST_BUSY_S

__all__ = ["ENSEMBLE", "ask_gateway", "ask_grpc", "fetch_config", "make_inference"]

ENSEMBLE: Final = "ensemble"  # the platform of a model that is made of others
SHORT_TIMEOUT_S: Final = 5.0
LENGTH: Final = 4  # of an axis whose size is free; patches of images come in fours
LARGEST_ID: Final = 100
SERIALIZED_TEXT: Final = b"\x01\x00\x00\x00?"  # "?" behind its length, as Triton sends strings
STUB_FAILURE: Final = b"Stub process '"  # "... is not healthy", "... failed"
HTTP2_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_HEADER_BYTES: Final = 9
HTTP2_SETTINGS: Final = 4


def fetch_config(host: str, http_port: int, model: str) -> dict[str, Any]:
    """Return the configuration of a model that Triton serves.

    Raises:
        OSError: Nobody answers.
        http.client.HTTPException: The answer is not HTTP, or not 200.
    """
    config: dict[str, Any] = json.loads(fetch(host, http_port, "GET", f"/v2/models/{model}/config"))
    return config


def make_inference(host: str, http_port: int, config: Mapping[str, Any]) -> Callable[[], None]:
    """Return a function that has a model compute the smallest input that it takes, with values that no cache has seen.

    Any answer of the model will do, an error too: it may find random values wrong, but it has to run to say so. What
    Triton says in the place of a stub that stands still is no answer.
    """
    path = f"/v2/models/{config['name']}/infer"
    outputs = tuple(each["name"] for each in config["output"][:1])

    def ask() -> None:
        request = InferRequest(config["name"], _make_inputs(config), outputs)
        body, header_length = to_body(request, "supervisor", None, {})
        headers = {HEADER_LENGTH: str(header_length)}
        _, answer = exchange(host, http_port, "POST", path, timeout_s=MOST_BUSY_S, body=body, headers=headers)
        if answer.startswith(b"{") and STUB_FAILURE in answer:
            raise http.client.HTTPException(answer.decode(errors="replace"))

    return ask


def _make_inputs(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the smallest tensors that a model takes, by name."""
    batch = [1] if int(config.get("max_batch_size", 0)) > 0 else []
    inputs = {}
    for tensor in config.get("input", []):
        shape = [*batch, *(LENGTH if int(dim) < 0 else int(dim) for dim in tensor["dims"])]
        inputs[tensor["name"]] = _make_values(tensor["data_type"], shape, _read_maximum(config, tensor["name"]))
    return inputs


def _make_values(data_type: str, shape: list[int], maximum: int) -> Tensor:
    random = np.random.default_rng()
    kind = data_type.removeprefix("TYPE_")
    if kind == "STRING":
        return np.full(shape, SERIALIZED_TEXT)
    dtype = triton_to_np_dtype(kind)
    if kind.startswith("FP"):
        return random.random(shape, dtype=np.float32).astype(dtype)
    if kind in ("UINT8", "BOOL"):
        return random.integers(0, 2 if kind == "BOOL" else 256, shape, dtype=np.uint8).astype(dtype)
    return random.integers(1, maximum + 1, shape).astype(dtype)


def _read_maximum(config: Mapping[str, Any], name: str) -> int:
    """Return the largest value to send: small, within the vocabulary, and 1 where nothing is known."""
    parameter = config.get("parameters", {}).get(f"maximum.{name}", {})
    return max(1, min(LARGEST_ID, int(parameter.get("string_value", 1))))


def ask_grpc(host: str, grpc_port: int) -> None:
    """Greet a gRPC server as HTTP/2 has it, and wait for its greeting. Nothing is called, so nothing is cancelled.

    Raises:
        OSError: Nobody answers, or it is no HTTP/2.
    """
    with socket.create_connection((reachable_host(host), grpc_port), timeout=SHORT_TIMEOUT_S) as connection:
        connection.sendall(HTTP2_GREETING)
        answer = connection.recv(HTTP2_HEADER_BYTES)
    if len(answer) < HTTP2_HEADER_BYTES or answer[3] != HTTP2_SETTINGS:
        raise OSError(f"port {grpc_port} does not speak HTTP/2")


def ask_gateway(host: str, port: int) -> None:
    """Ask a gateway whether it lives; any answer will do.

    Raises:
        OSError: Nobody answers.
        http.client.HTTPException: The answer is not HTTP.
    """
    exchange(host, port, "GET", "/health/live", timeout_s=SHORT_TIMEOUT_S)
