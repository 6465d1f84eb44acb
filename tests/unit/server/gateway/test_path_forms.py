"""Forms of a path that clients make of a base URL lead to the route that is meant, with its key and its counts."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from fakes.gateway import serve
from lychee_server.gateway.path_forms import plain_path
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

CALL: dict[str, Any] = {"query": "aaaa", "documents": ["aaaa"]}
KEY = "a-long-enough-key"
FORMS = ["/v1/rerank/", "//v1/rerank", "/v1//rerank//", "/v1/v1/rerank", "//v1//v1/rerank/", "/v1/v1/v1/rerank"]


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/v1/v2/rerank", "/v2/rerank"),
        ("/v1/v1", "/v1/v1"),
        ("/a/v1/v1/rerank", "/a/v1/v1/rerank"),
        ("/v1/v10/v1/rerank", "/v1/v10/v1/rerank"),
        ("/health//live/", "/health/live"),
    ],
)
def test_paths_are_made_plain(path: str, plain: str) -> None:
    assert plain_path(path) == plain


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("root", ["", "/proxied"])
def test_every_form_is_the_call_and_counts_as_it(path: str, root: str) -> None:
    with serve(root_path=root) as client:
        client.app.router.redirect_slashes = False  # type: ignore[attr-defined]
        answer = post(client, root, path)
        assert answer.status_code == 200, answer.text
        metrics = client.get("/metrics").text
    assert 'method="POST",modality="text",model="default",route="/v1/rerank",status="200"' in metrics


def post(client: Any, root: str, path: str, **options: Any) -> Any:
    """Send a call as uvicorn hands it over: with the root path before the path."""
    client._transport.root_path = root
    return client.post(f"http://127.0.0.1:7860{root}{path}", json=CALL, **options)


@pytest.mark.parametrize(
    "path", ["//v1/models", "/v1/models/", "/v1/v1/models", "//health/live/", "//metrics", "/docs/"]
)
def test_every_form_of_a_page_for_programs_is_read(path: str) -> None:
    with serve() as client:
        assert client.get(f"http://127.0.0.1:7860{path}", follow_redirects=False).status_code == 200
        assert client.request("PUT", f"http://127.0.0.1:7860{path}").status_code == 405


@pytest.mark.parametrize("path", [*FORMS, "/v1/rerank", "//v1/models", "//metrics", "/v1/nothing/", "//v2//x"])
def test_no_form_goes_without_a_key_or_with_what_a_browser_remembers(path: str) -> None:
    basic = base64.b64encode(f"user:{KEY}".encode()).decode()
    with serve(api_keys=(KEY,)) as client:
        url = f"http://127.0.0.1:7860{path}"
        for headers in ({}, {"authorization": f"Basic {basic}"}):
            for method in ("GET", "POST"):
                answer = client.request(method, url, headers=headers, follow_redirects=False)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
        assert client.post(url, json=CALL, headers={"x-api-key": KEY}).status_code in (200, 404, 405)
        assert client.get("http://127.0.0.1:7860//health/live/").status_code == 200


def test_no_form_is_called_by_a_foreign_page() -> None:
    with serve() as client:
        for path in FORMS:
            headers = {"origin": "http://evil.example"}
            assert client.post(f"http://127.0.0.1:7860{path}", json=CALL, headers=headers).status_code == 403


def test_paths_of_the_page_stay_as_they_are() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["path"])(scope, receive, send)

    with serve() as client:
        client.app.mount("/", page)  # type: ignore[attr-defined]
        for path in ("/files//a", "/assets/", "/page//shell//app.js"):
            assert client.get(f"http://127.0.0.1:7860{path}").text == path
