"""The edge: ids, keys, sizes, the log's lines and counts, and the drain, around a small app."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from lychee_server.defaults import MIB
from lychee_server.gateway import body_limit
from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.edge import install_middleware
from lychee_server.gateway.keys import ApiKeys
from lychee_server.gateway.limits import ConcurrencyLimit
from lychee_server.gateway.logs import JsonFormatter
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.request_ids import current_request_id
from lychee_server.gateway.settings import GatewaySettings

KEY = "a-key-of-the-shop"
CANARY = "canary"


def make_app(metrics: Metrics, **settings: Any) -> FastAPI:
    """Return an app with a page, an API and health behind the edge."""
    app, page = FastAPI(), FastAPI()

    @app.post("/v1/rerank")
    async def rerank(request: Request) -> dict[str, Any]:
        body = await request.json()
        notes = current_notes()
        notes.note_call("query " + CANARY, ["document " + CANARY] * len(body), content=True)
        notes.model, notes.errors = "lychee-mini", 0
        return {"id": current_request_id(), "documents": len(body)}

    @app.get("/v1/items/{name}")
    async def item(name: str) -> str:
        return name

    @app.get("/v1/refused")
    async def refused() -> None:
        raise HTTPException(418, "refused")

    @app.get("/v1/lost")
    async def lost() -> None:
        raise HTTPException(503, "no server")

    @app.get("/v1/broken")
    async def broken() -> None:
        raise ValueError(CANARY)

    @app.get("/health")
    @app.get("/health/live")
    @app.get("/health/ready")
    @app.get("/metrics")
    async def health(request: Request) -> str:
        if getattr(app.state, "fails", False):
            raise HTTPException(503, "not ready")
        return "ok"

    @page.get("/")
    @page.get("/assets/{name}")
    @page.post("/upload")
    async def root(request: Request) -> str:
        await request.body()
        return "page"

    app.mount("/", page)
    checked = GatewaySettings(**settings)
    install_middleware(app, checked, metrics, ApiKeys.load(checked))
    return app


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def log() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return a function that reads the log's lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("lychee_server")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def ask(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def counts(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    """Return requests by route, status and modality."""
    return {
        (sample.labels["route"], sample.labels["status"], sample.labels["modality"]): sample.value
        for metric in metrics._families.requests.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


def rejections(metrics: Metrics) -> dict[str, int]:
    return {reason: count for reason, count in metrics.snapshot()["rejected"].items() if count}


# request ids


def test_the_callers_request_id_is_echoed_and_known_inside(metrics: Metrics) -> None:
    response = ask(make_app(metrics), "POST", "/v1/rerank", json=[1, 2], headers={"x-request-id": "shop-1"})
    assert response.headers.get_list("x-request-id") == ["shop-1"]
    assert response.json() == {"id": "shop-1", "documents": 2}


@pytest.mark.parametrize("sent", [None, "with space", "x" * 129, "<script>"])
def test_without_a_well_formed_id_one_is_made(metrics: Metrics, sent: str | None) -> None:
    response = ask(make_app(metrics), "GET", "/v1/items/a", headers={"x-request-id": sent} if sent else {})
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/refused", 418), ("GET", "/v1/broken", 500), ("GET", "/v1/rerank", 404), ("GET", "/nowhere", 404)],
)
def test_errors_carry_the_id_too(metrics: Metrics, method: str, path: str, status: int) -> None:
    response = ask(make_app(metrics), method, path, headers={"x-request-id": "shop-2"})
    assert response.status_code == status
    assert response.headers["x-request-id"] == "shop-2"


def test_a_failure_that_nobody_foresaw_is_answered_without_its_message(
    metrics: Metrics, log: Callable[[], list[dict[str, Any]]]
) -> None:
    response = ask(make_app(metrics), "GET", "/v1/broken", headers={"x-request-id": "shop-3"})
    assert response.json()["type"] == "internal_error"
    assert response.json()["request_id"] == "shop-3"
    assert CANARY not in response.text
    (line,) = log()
    assert (line["level"], line["status"], line["request_id"]) == ("ERROR", 500, "shop-3")
    assert "in broken" in line["exception"]
    assert line["exception"].endswith("builtins.ValueError")
    assert counts(metrics) == {("/v1/broken", "500", "none"): 1}


# log and counts


def test_a_call_is_one_line_without_texts(metrics: Metrics, log: Callable[[], list[dict[str, Any]]]) -> None:
    ask(make_app(metrics), "POST", "/v1/rerank?secret=canary", json=[CANARY], headers={"x-request-id": "shop-4"})
    (line,) = log()
    assert line.pop("latency_ms") >= 0
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "lychee_server.access",
        "message": "request",
        "request_id": "shop-4",
        "route": "/v1/rerank",
        "method": "POST",
        "status": 200,
        "client": "192.0.2.7",
        "documents": 1,
        "modality": "text",
        "model": "lychee-mini",
        "errors": 0,
    }


def test_texts_are_logged_where_the_settings_ask_for_it(
    metrics: Metrics, log: Callable[[], list[dict[str, Any]]]
) -> None:
    ask(make_app(metrics, log_content=True), "POST", "/v1/rerank", json=[CANARY])
    assert log()[0]["query"] == "query canary"
    assert log()[0]["texts"] == ["document canary"]


@pytest.mark.parametrize(
    ("method", "path", "level"),
    [
        ("GET", "/metrics", "DEBUG"),
        ("GET", "/assets/page.js", "DEBUG"),
        ("GET", "/v1/items/a", "INFO"),
        ("GET", "/v1/refused", "WARNING"),
        ("GET", "/v1/lost", "ERROR"),
        ("GET", "/health/ready", "DEBUG"),
        ("GET", "/health", "WARNING"),
        ("GET", "/assets/page/absent", "WARNING"),
    ],
)
def test_levels_tell_calls_from_noise(
    metrics: Metrics, log: Callable[[], list[dict[str, Any]]], method: str, path: str, level: str
) -> None:
    app = make_app(metrics)
    app.state.fails = path == "/health"
    ask(app, method, path)
    assert [line["level"] for line in log()] == [level]


def test_counts_name_routes_and_never_paths(metrics: Metrics) -> None:
    app = make_app(metrics)
    for path in ("/v1/items/one", "/v1/items/two", "/assets/a.js", "/wp-login.php", "/"):
        ask(app, "GET", path)
    ask(app, "POST", "/v1/rerank", json=["a"])
    assert counts(metrics) == {
        ("/v1/items/{name}", "200", "none"): 2,
        ("page", "200", "none"): 2,
        ("none", "404", "none"): 1,
        ("/v1/rerank", "200", "text"): 1,
    }


# keys


def with_keys(metrics: Metrics) -> FastAPI:
    return make_app(metrics, api_keys=(KEY, "another-key"))


def basic(password: str, user: str = "anyone") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY} "}, {"x-api-key": KEY}],
)
@pytest.mark.parametrize("path", ["/v1/items/a", "/", "/assets/a.js", "/metrics", "/openapi.json"])
def test_a_key_opens_everything(metrics: Metrics, headers: dict[str, str], path: str) -> None:
    assert ask(with_keys(metrics), "GET", path, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/health/", "/"])
def test_probes_and_the_page_need_no_key(metrics: Metrics, path: str) -> None:
    assert ask(with_keys(metrics), "GET", path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/items/a", "/metrics", "/docs", "/openapi.json", "/assets/a.js", "/nowhere", "/page", "/pages/a.js",
        "/health/other", "/health/../metrics", "/Health", "/health%2flive/x", "/health;x",
    ],
)  # fmt: skip
def test_everything_else_needs_one(metrics: Metrics, path: str) -> None:
    response = ask(with_keys(metrics), "GET", path)
    assert response.status_code == 401
    assert response.json()["type"] == "unauthorized"
    assert "Authorization: Bearer KEY" in response.json()["message"]
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert rejections(metrics) == {"unauthorized": 1}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": KEY},
        {"Authorization": f"Token {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY} x"},
        {"x-api-key": KEY[:-1]},
        {"x-api-key": ""},
        {"Authorization": "Basic !!!"},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Cookie": f"x-api-key={KEY}"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/items/a", "/assets/a.js"])
def test_a_wrong_key_is_refused_and_not_repeated(
    metrics: Metrics, log: Callable[[], list[dict[str, Any]]], headers: dict[str, str], path: str
) -> None:
    response = ask(with_keys(metrics), "GET", path, headers=headers)
    assert response.status_code == 401
    assert KEY[:-1] not in response.text
    assert KEY[:-1] not in json.dumps(log())
    assert log()[0]["status"] == 401


def test_a_browser_is_asked_for_the_key_as_a_password(metrics: Metrics) -> None:
    app = with_keys(metrics)
    assert ask(app, "GET", "/docs").headers["www-authenticate"] == 'Basic realm="lychee-rerank", charset="UTF-8"'
    for path in ("/docs", "/assets/a.js", "/openapi.json"):
        assert ask(app, "GET", path, headers={"Authorization": basic(KEY)}).status_code == 200
        assert ask(app, "GET", path, headers={"Authorization": basic("wrong", user=KEY)}).status_code == 401


@pytest.mark.parametrize("path", ["/v1/items/a", "/metrics"])
def test_what_a_browser_remembers_does_not_open_the_api(metrics: Metrics, path: str) -> None:
    response = ask(with_keys(metrics), "GET", path, headers={"Authorization": basic(KEY)})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="lychee-rerank"'


def test_uploads_need_the_key(metrics: Metrics) -> None:
    app = with_keys(metrics)
    assert ask(app, "POST", "/upload", content=b"x").status_code == 401
    assert ask(app, "POST", "/upload", content=b"x", headers={"Authorization": basic(KEY)}).status_code == 200


def test_a_websocket_without_key_is_closed(metrics: Metrics) -> None:
    sent: list[Any] = []

    async def connect() -> None:
        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": []}

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await with_keys(metrics)(scope, receive, send)

    asyncio.run(connect())
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_without_keys_everything_is_open(metrics: Metrics) -> None:
    assert ask(make_app(metrics), "GET", "/v1/items/a", headers={"x-api-key": "any"}).status_code == 200


def test_keys_are_checked_below_the_path_of_a_proxy(metrics: Metrics) -> None:
    async def send(path: str, headers: dict[str, str]) -> int:
        transport = httpx.ASGITransport(with_keys(metrics), root_path="/rerank")
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get(path, headers=headers)).status_code

    assert asyncio.run(send("/rerank/health/live", {})) == 200
    assert asyncio.run(send("/rerank/v1/items/a", {"Authorization": basic(KEY)})) == 401
    assert asyncio.run(send("/rerank/v1/items/a", {"x-api-key": KEY})) == 200


# size


async def parts(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


@pytest.mark.parametrize("path", ["/v1/rerank", "/upload"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_above_the_limit_is_refused(metrics: Metrics, path: str, streamed: bool) -> None:
    content = parts(MIB // 4, 5) if streamed else b"x" * (MIB + 1)
    response = ask(make_app(metrics, max_request_mb=1), "POST", path, content=content)
    assert response.status_code == 413
    assert response.json()["message"] == "the request is larger than 1 MiB (--max-request-mb); send less"
    assert response.headers["connection"] == "close"
    assert rejections(metrics) == {"too_large": 1}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_at_the_limit_is_taken(metrics: Metrics, streamed: bool) -> None:
    content = parts(MIB // 4, 4) if streamed else b"x" * MIB
    assert ask(make_app(metrics, max_request_mb=1), "POST", "/upload", content=content).status_code == 200


def test_a_body_that_lies_about_its_length_is_counted(metrics: Metrics) -> None:
    app = make_app(metrics, max_request_mb=1)
    response = ask(app, "POST", "/upload", content=parts(MIB, 2), headers={"content-length": "10"})
    assert response.status_code == 413


def test_who_asks_before_sending_is_refused_without_reading(metrics: Metrics) -> None:
    statuses: list[int] = []

    async def test() -> None:
        async def receive() -> dict[str, Any]:
            raise AssertionError("nothing of the body may be read: the client would send it")

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        headers = [(b"content-length", str(2 * MIB).encode()), (b"expect", b"100-continue")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/upload",
            "raw_path": b"/upload",
            "query_string": b"",
            "headers": headers,
        }
        await make_app(metrics, max_request_mb=1)(scope, receive, send)

    asyncio.run(test())
    assert statuses == [413]


def test_a_body_that_never_ends_is_given_up(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit.BodyLimit.__init__, "__kwdefaults__", {"timeout_s": 0.05})
    monkeypatch.setattr(body_limit, "DISCARD_TIMEOUT_S", 0.01)

    async def slow() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.Event().wait()

    response = ask(make_app(metrics), "POST", "/v1/rerank", content=slow())
    assert response.status_code == 408
    assert "took longer than 0.05 s" in response.json()["message"]


def test_large_bodies_leave_room_for_small_ones(metrics: Metrics) -> None:
    app = make_app(metrics, max_request_mb=2)

    async def test() -> None:
        go_on, arrived = asyncio.Event(), asyncio.Event()

        async def held() -> AsyncIterator[bytes]:
            yield b"x" * (2 * MIB)
            arrived.set()
            await go_on.wait()

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            tasks = []
            for _ in range(body_limit.BODIES_IN_MEMORY):
                arrived.clear()
                tasks.append(asyncio.create_task(client.post("/upload", content=held())))
                await arrived.wait()
            assert (await client.post("/upload", content=b"x" * (MIB + 1))).status_code == 429
            assert (await client.post("/upload", content=b"x" * MIB)).status_code == 200
            go_on.set()
            assert [(await task).status_code for task in tasks] == [200] * body_limit.BODIES_IN_MEMORY

    asyncio.run(test())


def test_all_bodies_together_are_limited(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "SMALL_SHARE_BYTES", 0)
    app = make_app(metrics, max_request_mb=1)

    async def test() -> None:
        go_on, arrived = asyncio.Event(), asyncio.Event()

        async def held() -> AsyncIterator[bytes]:
            yield b"x" * (MIB - 10)
            arrived.set()
            await go_on.wait()

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            tasks = []
            for _ in range(2):
                arrived.clear()
                tasks.append(asyncio.create_task(client.post("/upload", content=held())))
                await arrived.wait()
            refused = [
                await client.post("/upload", content=b"x" * 100),
                await client.post("/upload", content=parts(50, 2)),
            ]
            for response in refused:
                assert response.status_code == 429
                assert response.headers["retry-after"] == "1"
                assert response.json()["type"] == "busy"
            go_on.set()
            assert [(await task).status_code for task in tasks] == [200, 200]
            assert (await client.post("/upload", content=b"x" * MIB)).status_code == 200

    asyncio.run(test())
    assert rejections(metrics) == {"busy": 2}


# drain


def test_a_stopping_gateway_refuses_new_requests_and_answers_probes(metrics: Metrics) -> None:
    app = make_app(metrics)
    app.state.drain.begin()
    response = ask(app, "POST", "/v1/rerank", json=[])
    assert response.status_code == 503
    assert response.headers["connection"] == "close"
    assert response.headers["retry-after"] == "2"
    assert response.json()["type"] == "stopping"
    assert ask(app, "GET", "/health/live").status_code == 200
    assert rejections(metrics) == {"stopping": 1}


def test_finish_waits_for_requests_and_for_calls_that_the_gateway_makes_itself(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        app, limit = make_app(metrics), ConcurrencyLimit(1, 0)
        metrics.of().watch_limit(limit)
        go_on, arrived = asyncio.Event(), asyncio.Event()

        async def held() -> AsyncIterator[bytes]:
            yield b"["
            arrived.set()
            await go_on.wait()
            yield b"]"

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            call = asyncio.create_task(client.post("/v1/rerank", content=held()))
            await arrived.wait()
            app.state.drain.begin()
            finish = asyncio.create_task(app.state.drain.finish())
            async with limit.slot(None):
                assert app.state.drain.in_flight == 2
                go_on.set()
                assert (await call).status_code == 200
                await asyncio.sleep(0)
                assert not finish.done()
            await finish
            assert app.state.drain.in_flight == 0

    asyncio.run(test())
