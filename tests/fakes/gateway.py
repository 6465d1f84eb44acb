"""A gateway in this process, in front of a server that computes simple scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi.testclient import TestClient
from lychee_server.gateway.app import create_app
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

from fakes.dual_encoder import FakeTransport

HOST = "http://127.0.0.1:7860"


@contextmanager
def serve(transport: FakeTransport | None = None, **settings: Any) -> Iterator[TestClient]:
    """Serve REST without the page; what nobody foresees is an answer of status 500, as for callers.

    Args:
        transport: Plays Triton; None: one that gives every pair a score.
        settings: Of the gateway.
    """
    values = GatewaySettings(**{"web": False, **settings})
    app = create_app(values, service=Service(values, transport=transport or FakeTransport()))
    with TestClient(app, HOST, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def serve_several(
    transports: Mapping[str, FakeTransport], own: Mapping[str, Mapping[str, Any]] | None = None, **settings: Any
) -> Iterator[TestClient]:
    """Serve REST of several models without the page; the first is the default.

    Args:
        transports: Play the Triton of each model, by its name.
        own: What a model has of its own of the settings, by its name.
        settings: Of the gateway.
    """
    values = {"web": False, **settings}
    metrics = Metrics()
    services = {
        name: Service(
            GatewaySettings(**{**values, **(own or {}).get(name, {})}),
            name=name,
            is_one_of_several=True,
            transport=transport,
            metrics=metrics,
        )
        for name, transport in transports.items()
    }
    app = create_app(GatewaySettings(**values), service=ModelServices(services, next(iter(services))))
    with TestClient(app, HOST, raise_server_exceptions=False) as client:
        yield client
