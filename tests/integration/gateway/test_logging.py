"""What a real gateway writes down: canaries in every field of requests, good and bad, and none in any output."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from lychee_server import TritonServer

from .running_gateway import STOP_TIMEOUT_S, run_gateway

pytestmark = pytest.mark.triton

CANARY = "canary4711"
KEY = f"{CANARY}-key"
HEADERS = {"Authorization": f"Bearer {KEY}", "x-request-id": "shop-1"}


def image_url(photos: Path) -> str:
    """Return a data URL of a photo with the canary behind its last byte."""
    content = (photos / "cat.jpg").read_bytes() + CANARY.encode()
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def bodies(photo: str) -> list[Any]:
    """Return requests that are good, partly bad and bad, each with the canary wherever it can stand."""
    good: dict[str, Any] = {"query": CANARY, "documents": [CANARY, {"text": CANARY, "image": photo}]}
    return [
        good,
        {**good, "instruction": CANARY},
        {**good, "return_documents": True, "policy": {"accept": 0.9, "review": 0.8}},
        {**good, "documents": [CANARY, {"image": f"data:image/png;base64,{CANARY}"}, {CANARY: CANARY}]},
        {**good, "documents": [{"image": f"http://{CANARY}.example.org/{CANARY}?{CANARY}"}]},
        {**good, "documents": [{"image": f"https://images.example.org:99/{CANARY}"}, {"image": CANARY}]},
        {**good, "model": CANARY},
        {**good, "policy": CANARY},
        {**good, "priority": CANARY},
        {**good, "top_n": CANARY},
        {**good, CANARY: CANARY},
        {"query": {CANARY: CANARY}, "documents": CANARY},
        {"query": "", "documents": [CANARY]},
        [CANARY],
        CANARY,
    ]


def test_neither_keys_nor_images_nor_texts_are_written_down(server: TritonServer, tmp_path: Path, photos: Path) -> None:
    errors = tmp_path / "errors.log"
    options = ("--no-web", "--log-level", "DEBUG", "--error-log", str(errors), "--image-host", "images.example.org")
    with run_gateway(tmp_path, server.grpc_url, *options, LYCHEE_GATEWAY_API_KEYS=KEY) as gateway:
        gateway.wait_for("/health/ready", 200)
        statuses = []
        with httpx.Client(base_url=gateway.url, headers=HEADERS, timeout=60) as client:
            for body in bodies(image_url(photos)):
                statuses.append(client.post("/v1/rerank", json=body).status_code)
            for content in (f'{{"query": "{CANARY}"', CANARY, f"\xff{CANARY}"):
                response = client.post("/v1/rerank", content=content, headers={"content-type": "application/json"})
                statuses.append(response.status_code)
            for path in (f"/{CANARY}", f"/v1/{CANARY}", f"/v1/models?{CANARY}={CANARY}"):
                statuses.append(client.get(path).status_code)
            wrong = client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}{CANARY}"})
            assert wrong.status_code == 401
            assert CANARY not in wrong.text
            metrics = client.get("/metrics").text
        gateway.process.terminate()
        assert gateway.process.wait(STOP_TIMEOUT_S) == 0
    assert statuses[:3] == [200] * 3
    assert set(statuses) >= {200, 400, 404}
    assert max(statuses) < 500
    assert CANARY not in metrics
    assert "/v1/rerank" in metrics
    for path in (gateway.output_path, tmp_path / "gateway.err", errors):
        assert CANARY not in path.read_text(encoding="utf-8")
    calls = [line for line in gateway.lines() if line.get("route") == "/v1/rerank"]
    assert {line["request_id"] for line in calls} == {"shop-1"}
    assert calls[0]["status"] == 200
    assert (calls[0]["documents"], calls[0]["modality"], calls[0]["errors"]) == (2, "mixed", 0)
    assert calls[0]["model"]
    assert calls[0]["latency_ms"] > 0


def test_texts_are_written_down_on_demand_but_neither_keys_nor_images(
    server: TritonServer, tmp_path: Path, photos: Path
) -> None:
    photo = image_url(photos)
    with run_gateway(
        tmp_path, server.grpc_url, "--no-web", "--log-content", LYCHEE_GATEWAY_API_KEYS="a-secret-key"
    ) as gateway:
        gateway.wait_for("/health/ready", 200)
        body = {"query": "a cat", "documents": ["一只猫", {"text": "of a photo", "image": photo}, {"image": photo}]}
        answer = httpx.post(f"{gateway.url}/v1/rerank", json=body, headers={"x-api-key": "a-secret-key"}, timeout=60)
        assert answer.status_code == 200
        gateway.process.terminate()
        gateway.process.wait(STOP_TIMEOUT_S)
    (line,) = [line for line in gateway.lines() if line.get("route") == "/v1/rerank"]
    assert line["query"] == "a cat"
    assert line["texts"] == ["一只猫", "of a photo", None]
    written = gateway.output_path.read_text(encoding="utf-8")
    assert "a-secret-key" not in written
    assert photo[30:90] not in written


def test_an_outage_is_written_into_the_error_log(tmp_path: Path) -> None:
    errors = tmp_path / "errors.log"
    with run_gateway(
        tmp_path, "127.0.0.1:1", "--no-web", "--log-level", "ERROR", "--error-log", str(errors)
    ) as gateway:
        assert gateway.get("/health/live")[0] == 200
        assert gateway.get("/health/ready")[0] == 503
        answer = httpx.post(f"{gateway.url}/v1/rerank", json={"query": CANARY, "documents": [CANARY]}, timeout=60)
        assert answer.status_code == 503
        gateway.process.terminate()
        assert gateway.process.wait(STOP_TIMEOUT_S) == 0
    lines = [json.loads(line) for line in errors.read_text(encoding="utf-8").splitlines()]
    assert 503 in {line.get("status") for line in lines}
    assert lines == [line for line in gateway.lines() if line["level"] == "ERROR"]
    assert CANARY not in json.dumps(lines)
    assert (tmp_path / "gateway.err").read_text(encoding="utf-8") == ""
