"""The route of the support bundle: behind the key, beside other requests, and as a file."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.gateway import serve_several
from fastapi.testclient import TestClient
from lychee_server.gateway import support_route
from lychee_server.gateway.app import create_app
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.support_route import BUNDLE_PATH

HOST = "http://127.0.0.1:7860"
KEY = "key-canary-4711"
WAIT_S = 60.0


def make_client(settings: GatewaySettings) -> TestClient:
    return TestClient(create_app(settings, service=Service(settings, transport=FakeTransport())), base_url=HOST)


def test_it_is_a_file_behind_the_key() -> None:
    with make_client(GatewaySettings(web=False, api_keys=(KEY,), policy="strict")) as client:
        assert client.get(BUNDLE_PATH).status_code == 401
        answer = client.get(BUNDLE_PATH, headers={"x-api-key": KEY})
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="lychee-support.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    assert json.loads(files["configuration.json"])["settings"]["policy"] == "strict"
    assert "lychee_gateway" in files["gateway-metrics.txt"]
    assert json.loads(files["served.json"])["status"]["live"] is True
    assert not any(KEY in text for text in files.values())


def test_others_are_answered_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()

    def write(**_: object) -> bytes:
        began.set()
        assert go_on.wait(WAIT_S)
        return b"bundle"

    monkeypatch.setattr(support_route, "write_bundle", write)
    with make_client(GatewaySettings(web=False)) as client, ThreadPoolExecutor() as pool:
        asked = pool.submit(client.get, BUNDLE_PATH)
        assert began.wait(WAIT_S)
        assert client.get("/health/live").status_code == 200
        assert not asked.done()
        go_on.set()
        assert asked.result(WAIT_S).content == b"bundle"


def test_it_tells_of_every_model_and_of_its_settings() -> None:
    transports = {name: FakeTransport(manifest={"model_id": name}) for name in ("a", "b")}
    with serve_several(transports, {"b": {"policy": "strict"}}) as client:
        content = client.get(BUNDLE_PATH).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        served = json.loads(archive.read("served.json"))
    assert list(served) == ["a", "b"]
    for name, policy in (("a", "balanced"), ("b", "strict")):
        assert served[name]["status"]["live"] is True
        settings = {entry["name"]: entry["value"] for entry in served[name]["settings"]}
        assert settings["policy"] == policy
