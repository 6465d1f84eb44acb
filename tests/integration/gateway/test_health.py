"""Health of a real gateway whose Triton is lost and comes back."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from lychee_server import TritonServer

from .running_gateway import RunningGateway, run_gateway

pytestmark = pytest.mark.triton


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_pair_is_scored(gateway: RunningGateway) -> None:
    status, body = gateway.get("/health")
    assert status == 200, body
    assert json.loads(body)["status"] == "ok"
    assert json.loads(body)["latency_ms"] > 0


def test_ready_follows_triton(repository: Path, tmp_path: Path) -> None:
    port = free_port()
    with run_gateway(tmp_path, f"127.0.0.1:{port}", "--no-web") as gateway:
        assert gateway.get("/health/live")[0] == 200
        gateway.wait_for("/health/ready", 503)
        for _ in range(2):
            with TritonServer(repository, http_port=0, grpc_port=port, metrics_port=0, log_path=tmp_path / "log"):
                gateway.wait_for("/health/ready", 200)
                assert gateway.get("/health")[0] == 200
            gateway.wait_for("/health/ready", 503)
            status, body = gateway.get("/health")
            assert status == 503
            assert json.loads(body)["status"] == "unavailable"
            assert json.loads(body)["reason"]
