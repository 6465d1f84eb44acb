"""What no honest caller sends: foreign names of the gateway, foreign pages, and two lengths of one body."""

from __future__ import annotations

import asyncio
import json

import pytest
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.request_check import RequestCheck, is_loopback
from starlette.responses import PlainTextResponse
from starlette.types import Message


def ask(
    headers: dict[str, str], *, host: str = "127.0.0.1", is_open: bool = True, allowed: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Send a request through the check; return status, and the body of a refusal."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    fields = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": fields}
    check = RequestCheck(PlainTextResponse("ok"), host=host, allowed_hosts=allowed, is_open=is_open, metrics=Metrics())
    asyncio.run(check(scope, receive, send))
    start, body = sent
    if start["status"] != 200:
        assert (b"connection", b"close") in start["headers"]
        return start["status"], json.loads(body["body"])["message"]
    return 200, ""


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
@pytest.mark.parametrize("port", ["", ":7860", ":1"])
def test_the_loopback_is_a_name_of_an_open_local_gateway(name: str, port: str) -> None:
    assert ask({"host": name + port})[0] == 200


@pytest.mark.parametrize(
    "name",
    ["evil", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.5", "0.0.0.0", "[::2]", "",
     "user@localhost", "localhost/evil", "localhost:x", "[::1", "evil\xe9"],
)  # fmt: skip
def test_other_names_of_an_open_local_gateway_are_refused(name: str) -> None:
    status, message = ask({"host": name})
    assert (status, "start it with --allowed-host" in message) == (403, True)


def test_the_own_and_the_allowed_names_pass() -> None:
    assert ask({"host": "box.example.org"}, allowed=("*.example.org",))[0] == 200
    assert ask({"host": "example.org"}, allowed=("*.example.org",))[0] == 403
    assert ask({"host": "Rerank.example.org:443"}, allowed=("rerank.example.org",))[0] == 200
    assert ask({"host": "localhost"}, allowed=("rerank.example.org",))[0] == 200
    assert ask({"host": "other"}, allowed=("rerank.example.org",), host="0.0.0.0", is_open=False)[0] == 403


@pytest.mark.parametrize(("host", "is_open"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_with_keys_or_for_the_network_any_name_passes(host: str, is_open: bool) -> None:
    assert ask({"host": "gateway:7860"}, host=host, is_open=is_open)[0] == 200


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:7860", "localhost:7860"),
        ("http://127.0.0.1", "127.0.0.1:80"),
        ("https://rerank.example.org", "rerank.example.org"),
        ("https://rerank.example.org:8443", "rerank.example.org"),  # nginx's $host has no port
        ("https://RERANK.example.org", "rerank.example.org:443"),
        ("http://[::1]:7860", "[::1]:7860"),
    ],
)
def test_the_own_page_may_call(origin: str, host: str) -> None:
    assert ask({"host": host, "origin": origin}, is_open=False)[0] == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "evil", "null", "", "http://localhost:3000", "https://localhost:7860.evil.example",
     "http://user@localhost:7860", "http://localhost:7860/x", "file://", "http://[::1"],
)  # fmt: skip
@pytest.mark.parametrize("is_open", [True, False])
def test_pages_of_other_sites_may_not_call(origin: str, is_open: bool) -> None:
    status, message = ask({"host": "localhost:7860", "origin": origin}, is_open=is_open)
    assert (status, "pages of other sites may not call" in message) == (403, True)


def test_a_page_of_an_allowed_host_may_call_behind_a_proxy_that_changes_the_name() -> None:
    headers = {"host": "127.0.0.1:7860", "origin": "https://rerank.example.org"}
    assert ask(headers, allowed=("rerank.example.org",))[0] == 200


def test_two_lengths_of_one_body_are_refused() -> None:
    status, message = ask({"host": "localhost", "transfer-encoding": "chunked", "content-length": "5"})
    assert (status, "Transfer-Encoding and Content-Length" in message) == (400, True)


def test_no_header_at_all_is_no_browser() -> None:
    assert ask({})[0] == 200


def test_names_of_the_loopback() -> None:
    assert is_loopback("localhost.")
    assert not is_loopback("notlocalhost")
