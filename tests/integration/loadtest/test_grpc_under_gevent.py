"""gRPC calls of gevent's callers are under way at the same time: the load generator does not queue them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from lychee_server import TritonServer
from tritonclient.grpc import service_pb2

pytestmark = pytest.mark.triton

CALLERS = 6
WAIT_S = 30.0


class Turnstile(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes everything on to Triton, but lets queries only through when CALLERS of them have come."""

    def __init__(self, triton: grpc.Channel) -> None:
        self._triton = triton
        self.barrier = threading.Barrier(CALLERS)

    def service(self, handler_call_details: Any) -> Any:
        """See grpc.GenericRpcHandler."""
        forward = self._triton.unary_unary(handler_call_details.method)

        def handle(message: bytes, context: grpc.ServicerContext) -> bytes:
            is_inference = handler_call_details.method.endswith("/ModelInfer")
            if is_inference and service_pb2.ModelInferRequest.FromString(message).model_name == "text_encoder":
                self.barrier.wait(WAIT_S)
            answer: bytes = forward(message, timeout=WAIT_S)
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)


@pytest.fixture
def turnstile(server: TritonServer) -> Iterator[tuple[Turnstile, str]]:
    """Run one in front of Triton; return it with its address."""
    with grpc.insecure_channel(server.grpc_url) as triton, ThreadPoolExecutor(2 * CALLERS) as pool:
        handler = Turnstile(triton)
        proxy = grpc.server(pool, handlers=[handler])
        port = proxy.add_insecure_port("127.0.0.1:0")
        proxy.start()
        yield handler, f"127.0.0.1:{port}"
        proxy.stop(None).wait(WAIT_S)


def test_calls_overlap(turnstile: tuple[Turnstile, str]) -> None:
    handler, url = turnstile
    script = Path(__file__).with_name("grpc_caller.py")
    finished = subprocess.run(
        [sys.executable, script, url, str(CALLERS)], capture_output=True, text=True, timeout=3 * WAIT_S
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == ["ready", f"answered {CALLERS}"]
    assert not handler.barrier.broken
