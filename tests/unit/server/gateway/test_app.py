"""The application: its life, what stands at the root, and what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fakes.dual_encoder import FakeTransport
from fastapi.testclient import TestClient
from lychee_server.errors import SettingsError
from lychee_server.gateway.app import create_app
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

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


def test_a_missing_gradio_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lychee_server.web.page", None)
    settings = GatewaySettings()
    with pytest.raises(SettingsError, match="--no-web"):
        create_app(settings, service=Service(settings, transport=FakeTransport()))
