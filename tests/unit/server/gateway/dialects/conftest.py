"""An answer of the gateway with a document that could not be ranked, and a gateway in front of simple scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fastapi.testclient import TestClient
from lychee_server.gateway.answer_schemas import RankedDocument, RerankAnswer, UsageReport
from lychee_server.gateway.app import create_app
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings


@pytest.fixture
def answer() -> RerankAnswer:
    """Rank b, a and an unreadable image, in this order, of the documents a, b and the image; b scores best."""
    ranked: list[dict[str, Any]] = [
        {"index": 1, "relevance_score": 0.75, "logit": 1.5, "document": {"text": "b"}},
        {"index": 0, "relevance_score": 0.25, "logit": -1.5, "document": {"text": "a"}},
        {"index": 2, "relevance_score": 0.0, "logit": None, "document": {"image": "!"}},
    ]
    return RerankAnswer.model_construct(
        id="call-1",
        model="fake",
        results=[RankedDocument.model_construct(**result) for result in ranked],
        errors=[],
        warnings=[],
        usage=UsageReport(total_tokens=9, prompt_tokens=9, images=0, documents=3),
    )


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Start a gateway."""
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))
    settings = GatewaySettings(web=False)
    app = create_app(settings, service=Service(settings, transport=FakeTransport()))
    with TestClient(app, "http://127.0.0.1:7860", raise_server_exceptions=False) as client:
        yield client
