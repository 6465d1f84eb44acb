"""Settings: argument beats environment beats default."""

from pathlib import Path

import pytest
from lychee_client import ConfigurationError, LycheeClient
from lychee_client._config import cache_dir, load_config
from lychee_client._transports.fake import FakeTransport


def test_defaults() -> None:
    config = load_config()
    assert (config.url, config.timeout_s, config.policy.name) == ("localhost:8001", 30.0, "balanced")


def test_environment_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_URL", "server:1")
    monkeypatch.setenv("LYCHEE_TIMEOUT_S", "2.5")
    config = load_config()
    assert (config.url, config.timeout_s) == ("server:1", 2.5)


def test_argument_beats_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_URL", "server:1")
    monkeypatch.setenv("LYCHEE_TIMEOUT_S", "2.5")
    config = load_config("other:2", None, "strict")
    assert (config.url, config.timeout_s, config.policy.name) == ("other:2", None, "strict")


@pytest.mark.parametrize("url", ["localhost:8001", "10.0.0.1:1", "[::1]:65535", "triton.example.org:8001"])
def test_good_urls(url: str) -> None:
    assert load_config(url).url == url


@pytest.mark.parametrize(
    "url", ["", "localhost", ":8001", "http://localhost:8001", "localhost:0", "localhost:65536", "a b:1", "::1:8001"]
)
def test_bad_urls_are_refused_by_the_constructor(url: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        LycheeClient(url, transport=FakeTransport())


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), "3"])
def test_bad_timeouts_are_refused(timeout_s: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout_s"):
        load_config(timeout_s=timeout_s)


def test_bad_timeout_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_TIMEOUT_S", "soon")
    with pytest.raises(ConfigurationError, match="LYCHEE_TIMEOUT_S"):
        load_config()


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="strict, balanced, exploratory"):
        load_config(policy="lenient")


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("LYCHEE_CACHE_DIR")
    assert cache_dir().name == "lychee-rerank"
