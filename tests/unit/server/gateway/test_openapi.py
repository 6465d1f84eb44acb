"""The documentation: complete, with examples that are valid, and without any other host."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fastapi.testclient import TestClient
from lychee_server.gateway.app import create_app
from lychee_server.gateway.dialects.choice import RERANK_PATHS, SCORE_PATHS
from lychee_server.gateway.documents import read_parts
from lychee_server.gateway.request_schemas import RERANK_EXAMPLES, SCORE_EXAMPLES, RerankRequest, ScoreRequest
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

HOST = "http://127.0.0.1:7860"

PATHS = {
    *RERANK_PATHS,
    *SCORE_PATHS,
    "/info",
    "/v1/models",
    "/v1/models/{name}",
    "/v1/instructions",
    "/v1/feedback",
    "/v1/settings",
    "/v1/calibration",
    "/v1/status",
    "/v1/golden-pairs",
    "/v1/support-bundle",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
}


@pytest.fixture(scope="module")
def client() -> TestClient:
    settings = GatewaySettings(web=False, root_path="/proxied")
    app = create_app(settings, service=Service(settings, transport=FakeTransport()))
    return TestClient(app, root_path=settings.root_path, base_url=HOST)


def test_every_route_is_described(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == PATHS
    for operation in (operation for path in PATHS for operation in schema["paths"][path].values()):
        assert operation["summary"]
        assert operation["description"]


def test_text_image_and_multimodal_examples_are_in_the_description(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    for path in ("/v1/rerank", "/v2/rerank", "/v1/score"):
        content = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert set(content["examples"]) == {"text", "image", "multimodal"}


@pytest.mark.parametrize("value", [example["value"] for example in RERANK_EXAMPLES.values()])
def test_rerank_examples_are_valid(value: dict[str, Any]) -> None:
    for content in (value["query"], *RerankRequest(**value).documents):
        read_parts(content)


@pytest.mark.parametrize("value", [example["value"] for example in SCORE_EXAMPLES.values()])
def test_score_examples_are_valid(value: dict[str, Any]) -> None:
    for content in (value["query"], ScoreRequest(**value).document):
        read_parts(content)


def test_the_page_and_what_it_loads_come_from_below_the_root_path(client: TestClient) -> None:
    page = client.get("/docs").text
    targets = re.findall(r"(?:href|src|action|url)(?:=\"|: ')([^\"']*)[\"']", page)
    static = "/proxied/docs/static"
    assert targets == [
        f"{static}/swagger-ui.css", f"{static}/favicon.png", f"{static}/swagger-ui-bundle.js", "/proxied/openapi.json",
    ]  # fmt: skip
    for target in targets:
        assert client.get(target).status_code == 200  # uvicorn puts the root path before the path too
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/proxied"}]
    assert '"validatorUrl": null' in page


def test_the_page_asks_for_a_key_only_where_there_are_keys(client: TestClient) -> None:
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]
    settings = GatewaySettings(web=False, api_keys=("k",))
    keyed = TestClient(create_app(settings, service=Service(settings, transport=FakeTransport())), base_url=HOST)
    assert keyed.get("/docs/static/swagger-ui.css").status_code == 401
    schema = keyed.get("/openapi.json", headers={"x-api-key": "k"}).json()
    (scheme,) = schema["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "x-api-key")


def test_fastapis_other_page_is_off(client: TestClient) -> None:
    assert client.get("/redoc").status_code == 404


def test_what_may_not_be_empty_is_described(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()["components"]["schemas"]["RerankRequest"]["properties"]
    assert schema["documents"]["minItems"] == 1
    text, parts, several, content = schema["query"]["anyOf"]
    assert text["minLength"] == parts["properties"]["text"]["minLength"] == 1
    assert (
        parts["minProperties"]
        == several["properties"]["images"]["minItems"]
        == content["properties"]["content"]["minItems"]
        == 1
    )


def test_each_path_shows_every_shape_that_it_takes(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()

    def titles(path: str, content: dict[str, Any]) -> set[str]:
        return {each["$ref"].rpartition("/")[2] for each in content["application/json"]["schema"]["anyOf"]}

    for path, asked, answered in (
        ("/v1/score", {"ScoreRequest", "VllmScoreRequest"}, {"ScoreAnswer", "VllmScoreAnswer"}),
        ("/v1/ranking", {"NimRequest"}, {"NimAnswer"}),
        ("/infinity/rerank", {"InfinityRequest"}, {"InfinityAnswer"}),
    ):
        operation = schema["paths"][path]["post"]
        assert titles(path, operation["requestBody"]["content"]) == asked
        assert titles(path, operation["responses"]["200"]["content"]) == answered
        assert asked | answered <= set(schema["components"]["schemas"])
    assert {"RerankRequest", "TeiRequest", "VoyageRequest"} <= titles(
        "/rerank", schema["paths"]["/rerank"]["post"]["requestBody"]["content"]
    )
    (parameter,) = schema["paths"]["/v1/retrieval/{model}/reranking"]["post"]["parameters"]
    assert parameter["name"] == "model"
