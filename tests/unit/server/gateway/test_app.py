"""The application: its life, what stands at the root, and what is missing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.server_state import make_state
from fastapi.testclient import TestClient
from lychee_server import state
from lychee_server.errors import SettingsError
from lychee_server.gateway.app import create_app
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

HOST = "http://127.0.0.1:7860"
KEY = "a-key-of-this-test"
CALL = {"query": "a", "documents": ["b"]}


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))


def test_the_app_starts_and_closes_its_service() -> None:
    settings = GatewaySettings(web=False)
    service = Service(settings, transport=FakeTransport())
    with TestClient(create_app(settings, service=service), base_url=HOST) as client:
        assert client.get("/v1/models").status_code == 200
        assert service.health.state != "stopping"
    assert service.health.state == "stopping"


def test_the_root_without_the_page_says_where_things_are() -> None:
    settings = GatewaySettings(web=False, root_path="/proxied")
    with TestClient(
        create_app(settings, service=Service(settings, transport=FakeTransport())), base_url=HOST
    ) as client:
        assert client.get("/").json()["documentation"] == "/proxied/docs"
        assert client.get("/docs").status_code == 200


def test_a_cache_of_the_settings_is_shown_in_the_metrics() -> None:
    app = create_app(GatewaySettings(web=False, cache_mb=1))
    assert app.state.service.cache is not None
    assert b"lychee_gateway_embedding_cache_max_bytes" in app.state.service.metrics.render()[0]
    assert create_app(GatewaySettings(web=False, cache_mb=0)).state.service.cache is None


def test_restarts_are_among_the_metrics_of_the_gateway_that_is_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(GatewaySettings(web=False, cache_mb=0))
    assert b"lychee_restarts_total" not in app.state.service.metrics.render()[0]
    gateway = state.GatewayState(os.getpid(), 1, "127.0.0.1", 7860, "gateway.log")
    restarts = {"triton": state.Restarts(2, "it ended by signal 9", 0.0)}
    state.write_state(make_state(gateway=gateway, restarts=restarts))
    shown = app.state.service.metrics.render()[0]
    assert b'lychee_restarts_total{process="triton"} 2.0' in shown
    assert b'lychee_restarts_total{process="gateway"} 0.0' in shown


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Serve the page of a gateway that has a key."""
    settings = GatewaySettings(api_keys=(KEY,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LYCHEE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        with TestClient(create_app(settings, service=Service(settings, transport=FakeTransport())), HOST) as client:
            yield client


def test_the_page_and_its_files_are_open_and_the_api_is_not(page: TestClient) -> None:
    index = page.get("/")
    assert index.status_code == 200
    assert "default-src 'self'" in index.headers["content-security-policy"]
    files = re.findall(r'(?:href|src)="(page/[^"]+)"', index.text)
    assert files
    for path in (*files, "page/catalogue.json", "page/status/tab.js"):
        answer = page.get(f"/{path}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/v1/models", "/v1/status", "/v1/settings", "/metrics", "/docs", "/openapi.json", "/page"):
        assert page.get(path, follow_redirects=False).status_code == 401
    for path in ("/v1/rerank", "/v1/golden-pairs"):
        assert page.post(path, json=CALL).status_code == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "/page/..%2fv1/models",
        "/page/..%2Fv1%2Fmodels",
        "/page/%2e%2e/v1/models",
        "/page/%2e%2e%2fv1%2fstatus",
        "/page/..%5cv1%5cmodels",
        "/page//v1/models",
        "/page/%2fv1/models",
        "/page/..%2f..%2fpage.py",
        "/page/..%2fpage.py",
        "/page/photos/..%2f..%2f..%2fpage.py",
        "/page/%2fetc/passwd",
        "/page/..;/v1/models",
        "/page/%252e%252e/v1/models",
        "/page/shell/../../page.py",
        "/page/x%00.js",
    ],
)
def test_below_the_pages_path_nothing_but_its_files_is_open(page: TestClient, method: str, path: str) -> None:
    answer = page.request(method, path, content=json.dumps(CALL) if method == "POST" else None)
    assert answer.status_code in (401, 404, 405)
    for secret in (b"lychee-mini", b"install_page", b"root:", b'"data"'):
        assert secret not in answer.content


def test_the_page_knows_the_path_under_which_a_proxy_serves_it() -> None:
    settings = GatewaySettings(root_path="/rerank")
    app = create_app(settings, service=Service(settings, transport=FakeTransport()))
    with TestClient(app, HOST, root_path="/rerank") as client:
        assert '<base href="/rerank/">' in client.get("/rerank/").text
        assert client.get("/rerank/page/shell/app.js").status_code == 200


def test_what_the_page_needs_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lychee_server.web.find_spec", lambda name: None)
    settings = GatewaySettings()
    with pytest.raises(SettingsError, match="--no-web"):
        create_app(settings, service=Service(settings, transport=FakeTransport()))
