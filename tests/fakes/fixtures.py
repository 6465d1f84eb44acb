"""Fixtures: a client on the fake transport, with a cache folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lychee_client import LycheeClient

from fakes.dual_encoder import FakeTransport


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's cache and settings out of the tests."""
    path = tmp_path / "cache"
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(path))
    monkeypatch.delenv("LYCHEE_URL", raising=False)
    monkeypatch.delenv("LYCHEE_TIMEOUT_S", raising=False)
    monkeypatch.delenv("LYCHEE_MAX_IMG_SIZE", raising=False)
    monkeypatch.delenv("LYCHEE_API_KEY", raising=False)
    monkeypatch.delenv("LYCHEE_INSTRUCTIONS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return path


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def client(transport: FakeTransport) -> Iterator[LycheeClient]:
    with LycheeClient(transport=transport) as client:
        yield client
