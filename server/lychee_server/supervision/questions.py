"""What Triton and gateway are asked to see whether they still work: a real inference, a sign of life."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from lychee_server.supervision.watch import MOST_BUSY_S
from lychee_server.triton import fetch, reachable_host

__all__ = ["ask_gateway", "ask_grpc", "make_inference", "read_config"]

SHORT_TIMEOUT_S: Final = 5.0
LENGTH: Final = 4  # of an axis whose size is free; patches of images come in fours
LARGEST_ID: Final = 100
STUB_FAILURE: Final = b"Stub process '"  # "... is not healthy", "... failed"
HTTP2_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_HEADER_BYTES: Final = 9
HTTP2_SETTINGS: Final = 4


def read_config(host: str, http_port: int, model: str) -> dict[str, Any]:
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

    def ask() -> None:
        header, content = _make_request(config)
        connection = http.client.HTTPConnection(reachable_host(host), http_port, timeout=MOST_BUSY_S)
        try:
            length = {"Inference-Header-Content-Length": str(len(header))}
            connection.request("POST", f"/v2/models/{config['name']}/infer", header + content, length)
            answer = connection.getresponse().read()
        finally:
            connection.close()
        if answer.startswith(b"{") and STUB_FAILURE in answer:
            raise http.client.HTTPException(answer.decode(errors="replace"))

    return ask


def _make_request(config: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the JSON of an inference request, and the bytes of its tensors behind it."""
    batch = [1] if int(config.get("max_batch_size", 0)) > 0 else []
    inputs, content = [], b""
    for tensor in config.get("input", []):
        shape = [*batch, *(LENGTH if int(dim) < 0 else int(dim) for dim in tensor["dims"])]
        kind = str(tensor["data_type"]).removeprefix("TYPE_")
        data = _make_values(kind, shape, _read_maximum(config, tensor["name"]))
        sizes = {"binary_data_size": len(data)}
        datatype = "BYTES" if kind == "STRING" else kind
        inputs.append({"name": tensor["name"], "datatype": datatype, "shape": shape, "parameters": sizes})
        content += data
    outputs = [{"name": each["name"], "parameters": {"binary_data": True}} for each in config["output"][:1]]
    return json.dumps({"inputs": inputs, "outputs": outputs}).encode(), content


def _make_values(kind: str, shape: list[int], maximum: int) -> bytes:
    random = np.random.default_rng()
    if kind == "STRING":
        return b"\x01\x00\x00\x00?" * int(np.prod(shape))
    if kind.startswith("FP"):
        return random.random(shape, dtype=np.float32).astype(f"f{int(kind[2:]) // 8}").tobytes()
    if kind in ("UINT8", "BOOL"):
        return random.integers(0, 2 if kind == "BOOL" else 256, shape, dtype=np.uint8).tobytes()
    return random.integers(1, maximum + 1, shape).astype(kind.lower()).tobytes()


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
    connection = http.client.HTTPConnection(reachable_host(host), port, timeout=SHORT_TIMEOUT_S)
    try:
        connection.request("GET", "/health/live")
        connection.getresponse().read()
    finally:
        connection.close()
