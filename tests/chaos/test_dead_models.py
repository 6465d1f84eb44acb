"""A model whose process dies or is short of memory: errors with a reason, no empty answers, and health that tells."""

from __future__ import annotations

import base64
import io
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import psutil
import pytest
from integration.gateway.running_gateway import RunningGateway, run_gateway
from lychee_client import Image, InferenceError, LycheeClient
from lychee_server import TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.slow]
FALLS_WITHIN_S = 5.0
RISES_WITHIN_S = 60.0  # with the start of another Triton


class Service:
    """A real Triton and a real gateway before it."""

    def __init__(self, repository: Path, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.grpc_port: int = listener.getsockname()[1]
        self._repository, self._folder = repository, folder
        self.triton = self.start()
        self.gateway: RunningGateway

    def start(self) -> TritonServer:
        ports = {"http_port": 0, "grpc_port": self.grpc_port, "metrics_port": 0}
        triton = TritonServer(self._repository, config_name="cpu", **ports, log_path=self._folder / "triton.log")
        triton.start()
        triton.wait_until_ready()
        return triton

    def stub(self, model_name: str) -> psutil.Process:
        """Return the process that runs a model."""
        children = psutil.Process(self.triton.pid).children(recursive=True)
        (found,) = [child for child in children if any(f"/{model_name}/" in argument for argument in child.cmdline())]
        return found

    def rank(self, documents: list[Any]) -> httpx.Response:
        body = {"query": "a cat", "documents": documents}
        return httpx.post(f"{self.gateway.url}/v1/rerank", json=body, timeout=120, trust_env=False)


@pytest.fixture
def service(repository: Path, tmp_path: Path) -> Iterator[Service]:
    running = Service(repository, tmp_path)
    try:
        with run_gateway(tmp_path, running.triton.grpc_url, "--no-web", "--timeout-s", "120") as gateway:
            running.gateway = gateway
            gateway.wait_for("/health/ready", 200)
            yield running
    finally:
        running.triton.stop()


def new_picture() -> Image:
    return Image.from_numpy(np.random.default_rng().integers(0, 256, (40, 40, 3), dtype=np.uint8))


def new_document() -> dict[str, str]:
    stream = io.BytesIO()
    pixels = np.random.default_rng().integers(0, 256, (40, 40, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    return {"image": f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"}


def wait_until_unready(gateway: RunningGateway, since_s: float) -> str:
    """Return the reason; fail if it takes too long."""
    while True:
        status, body = gateway.get("/health/ready")
        if status == 503:
            return str(json.loads(body)["reason"])
        assert time.monotonic() - since_s < FALLS_WITHIN_S, "still ready"
        time.sleep(0.1)


@pytest.mark.parametrize("model_name", ["vision_encoder", "scoring_heads", "text_encoder"])
def test_dead_model_is_told_and_costs_only_what_needs_it(service: Service, model_name: str) -> None:
    assert len(service.rank(["a", new_document()]).json()["results"]) == 2
    died_at_s = time.monotonic()
    os.kill(service.stub(model_name).pid, signal.SIGKILL)
    assert model_name in wait_until_unready(service.gateway, died_at_s)
    status, body = service.gateway.get("/health")
    assert status == 503
    assert model_name in json.loads(body)["reason"]
    metrics = service.gateway.get("/metrics")[1]
    assert 'lychee_gateway_ready{model="default"} 0.0' in metrics
    assert 'lychee_gateway_triton_up{model="default"} 0.0' in metrics

    needs = {"vision_encoder": [new_document()], "text_encoder": ["new text"]}
    answer = service.rank([*needs.get(model_name, [{"text": "new text", **new_document()}])])
    assert answer.status_code in (502, 503), answer.text
    assert "retry-after" in answer.headers
    asked = "scoring_head_image_text" if model_name == "scoring_heads" else model_name  # a step onto it
    assert asked in answer.json()["message"]
    if model_name == "vision_encoder":
        answer = service.rank([f"a text of {died_at_s}"])
        assert (answer.status_code, len(answer.json()["results"])) == (200, 1)
        assert answer.json()["warnings"] == []

    service.triton.stop()
    service.triton = service.start()
    began_at_s = time.monotonic()
    while service.gateway.get("/health/ready")[0] != 200:
        assert time.monotonic() - began_at_s < RISES_WITHIN_S
        time.sleep(0.1)
    assert service.gateway.get("/health")[0] == 200
    assert len(service.rank(["new text", new_document()]).json()["results"]) == 2


def test_every_client_sees_an_exception(service: Service) -> None:
    os.kill(service.stub("vision_encoder").pid, signal.SIGKILL)
    with LycheeClient(service.triton.grpc_url) as client:
        with pytest.raises(InferenceError, match="vision_encoder"):
            client.rerank("a cat", [new_picture(), "a text"])
        assert len(client.rerank("a cat", ["a text"]).results) == 1
    assert service.rank([new_document()]).status_code in (502, 503)


def test_shortage_of_memory_is_no_documents_fault_and_nothing_of_it_is_kept(service: Service) -> None:
    documents: list[Any] = [f"{number} " + "long text " * 300 for number in range(8)]
    stub = service.stub("text_encoder")
    before = stub.rlimit(resource.RLIMIT_AS)
    stub.rlimit(resource.RLIMIT_AS, (stub.memory_info().vms, before[1]))
    answer = service.rank(documents)
    assert answer.status_code in (502, 503), answer.text[:300]
    assert "text_encoder" in answer.json()["message"]
    if not stub.is_running():
        pytest.skip("the process did not survive the shortage; what it kept ended with it")
    stub.rlimit(resource.RLIMIT_AS, before)
    service.gateway.wait_for("/health/ready", 200)
    answer = service.rank(documents)
    assert answer.status_code == 200, answer.text[:300]
    assert (len(answer.json()["results"]), answer.json()["errors"]) == (8, [])
