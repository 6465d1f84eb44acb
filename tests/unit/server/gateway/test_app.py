"""The application: its life, what stands at the root, and what is missing."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from fakes.dual_encoder import FakeTransport
from fastapi import FastAPI
from fastapi.testclient import TestClient
from lychee_server import state
from lychee_server.errors import SettingsError
from lychee_server.gateway.app import create_app
from lychee_server.gateway.late_page import LatePage
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from starlette.responses import PlainTextResponse

HOST = "http://127.0.0.1:7860"


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
    state.write_state(
        state.ServerState(1, 1, "lychee_x_", "127.0.0.1", 1, 2, 3, "models", "log", gateway, restarts=restarts)
    )
    shown = app.state.service.metrics.render()[0]
    assert b'lychee_restarts_total{process="triton"} 2.0' in shown
    assert b'lychee_restarts_total{process="gateway"} 0.0' in shown


def make_page(content: str) -> FastAPI:
    """Return an application whose last route is a page."""
    page = FastAPI()
    page.mount("/", PlainTextResponse(content))
    return page


def test_whoever_comes_before_the_page_is_there_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    monkeypatch.setattr(LatePage, "_import_page", go_on.wait)
    monkeypatch.setattr(LatePage, "_build_page", lambda page: make_page("the page"))
    settings = GatewaySettings()
    with TestClient(
        create_app(settings, service=Service(settings, transport=FakeTransport())), base_url=HOST
    ) as client:
        assert client.get("/v1/models").status_code == 200
        threading.Timer(0.2, go_on.set).start()
        assert client.get("/").text == "the page"


def test_a_page_that_fails_does_not_take_rest_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(page: LatePage) -> FastAPI:
        raise RuntimeError("no page today")

    monkeypatch.setattr(LatePage, "_build_page", build)
    settings = GatewaySettings()
    with TestClient(
        create_app(settings, service=Service(settings, transport=FakeTransport())), base_url=HOST
    ) as client:
        answer = client.get("/")
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert client.get("/v1/models").status_code == 200


def test_a_missing_gradio_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lychee_server.web.page", None)
    settings = GatewaySettings()
    with pytest.raises(SettingsError, match="--no-web"):
        create_app(settings, service=Service(settings, transport=FakeTransport()))
