"""The page's HTTP side, on the client's fake transport: its language, its headers, and what is not served."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest
from fakes.dual_encoder import FakeTransport
from fastapi import FastAPI
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.web.page import mount_page
from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def page() -> Iterator[TestClient]:
    async def make() -> FastAPI:  # outside a running loop, Gradio makes loops of its own and never closes them
        return mount_page(FastAPI(), Service(GatewaySettings(), transport=FakeTransport()))

    with TestClient(asyncio.run(make())) as client:
        yield client


@pytest.mark.parametrize(("query", "header", "language"), [("", "zh-CN", "zh"), ("?lang=en", "zh", "en")])
def test_the_page_is_served_in_the_language_asked_for(page: TestClient, query: str, header: str, language: str) -> None:
    text = page.get(f"/{query}", headers={"accept-language": header}).text
    assert f'lang="{language}"' in text
    config = json.JSONDecoder().raw_decode(text, text.index("gradio_config = ") + len("gradio_config = "))[0]
    values = {entry["props"].get("elem_id"): entry["props"].get("value") for entry in config["components"]}
    assert values["language"] == language
    assert values["score-submit"] == {"en": "Score", "zh": "打分"}[language]


def test_the_page_names_no_other_site(page: TestClient) -> None:
    text = page.get("/").text
    assert set(re.findall(r"https?://[^\s\"'<>\\]+", text)) <= {"http://testserver", "http://www.w3.org/2000/svg"}


def test_every_answer_forbids_other_origins(page: TestClient) -> None:
    for path in ("/", "/theme.css", "/nothing"):
        policy = page.get(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "connect-src 'self'" in policy


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/config", 404),
        ("/gradio_api/info", 404),
        ("/gradio_api/run/score", 404),
        ("/gradio_api/call/score", 404),
        ("/gradio_api/proxy=http://127.0.0.1/", 404),
        ("/gradio_api/file=http://127.0.0.1/", 404),
        ("/gradio_api/file=/etc/passwd", 403),
        ("/static/../routes.py", 404),
        ("/login", 404),
        ("/monitoring", 404),
        ("/v1/unknown", 404),
    ],
)
def test_only_what_the_page_needs_is_served(page: TestClient, path: str, status: int) -> None:
    assert page.get(path).status_code == status


@pytest.mark.parametrize("path", ["http://127.0.0.1:1/x.png", "https://example.org/x.png", "relative.png"])
def test_an_event_cannot_name_a_url_as_a_file(page: TestClient, path: str) -> None:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    answer = page.post("/gradio_api/queue/join", json={"fn_index": 0, "session_hash": "a", "data": [[{"x": file}]]})
    assert answer.status_code == 400
    assert "no upload" in answer.json()["detail"]


@pytest.mark.parametrize("number", [99999, -1, None, "0", [], 10**30])
def test_an_event_of_no_handler_is_refused(page: TestClient, number: object) -> None:
    answer = page.post("/gradio_api/queue/join", json={"fn_index": number, "session_hash": "a", "data": []})
    assert (answer.status_code, "no handler" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("GET", f"/assets/{'a' * 5000}", 404), ("TRACE", "/", 405)]
)
def test_what_is_not_served_is_told_in_the_documented_keys(
    page: TestClient, method: str, path: str, status: int
) -> None:
    answer = page.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"message", "detail", "type", "param", "request_id", "error"}


def test_no_handler_is_open_to_programs(page: TestClient) -> None:
    text = page.get("/").text
    config = json.JSONDecoder().raw_decode(text, text.index("gradio_config = ") + len("gradio_config = "))[0]
    assert {entry["api_visibility"] for entry in config["dependencies"]} == {"private"}
