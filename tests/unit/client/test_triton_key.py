"""Which server gets which key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from fakes.server_state import make_state, make_triton
from lychee_client import LycheeClient
from lychee_client.triton_key import KEY_HEADER, KEY_VARIABLE, key_headers
from lychee_server import state

KNOWN = make_state(
    make_triton(http_port=8000, grpc_port=8001), make_triton(http_port=8010, grpc_port=8011), triton_key="secret"
)


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.mark.parametrize("address", ["localhost:8001", "127.0.0.1:8000", "[::1]:8001", "localhost:8011"])
def test_server_of_this_user_gets_its_key(address: str) -> None:
    assert key_headers(address) == {}
    state.write_state(KNOWN)
    assert key_headers(address) == {KEY_HEADER: "secret"}


@pytest.mark.parametrize("address", ["localhost:9001", "127.0.0.1:8002", "triton:8001", "localhost.example.org:8001"])
def test_another_server_does_not_get_it(address: str) -> None:
    state.write_state(KNOWN)
    assert key_headers(address) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"triton_key": "secret"}'])
def test_damaged_state_file_holds_no_key(content: str) -> None:
    state.write_state(KNOWN)
    state.state_path().write_text(content, encoding="utf-8")
    assert key_headers("localhost:8001") == {}


def test_variable_comes_first_and_an_explicit_header_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    state.write_state(KNOWN)
    monkeypatch.setenv(KEY_VARIABLE, "other")
    assert key_headers("localhost:8001") == key_headers("triton:8001") == {KEY_HEADER: "other"}
    with LycheeClient(headers={KEY_HEADER: "own"}) as client:
        assert client._config.make_connection(None).headers == {KEY_HEADER: "own"}


def test_only_its_owner_can_read_the_key() -> None:
    state.write_state(KNOWN)
    assert stat.S_IMODE(state.state_path().stat().st_mode) == 0o600
    assert "secret" not in repr(KNOWN)
