"""Settings: argument beats environment beats default."""

from pathlib import Path

import pytest
import trustme
from fakes.dual_encoder import FakeTransport
from lychee_client import ConfigurationError, LycheeClient, TlsConfig
from lychee_client._config import cache_dir, load_config
from lychee_client._connect import connect
from lychee_client.transports.replicas import Replicas


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


@pytest.mark.parametrize(
    ("url", "scheme", "address", "secure"),
    [
        ("localhost:8001", "grpc", "localhost:8001", False),
        ("10.0.0.1:1", "grpc", "10.0.0.1:1", False),
        ("grpc://[::1]:65535", "grpc", "[::1]:65535", False),
        ("grpcs://triton.example.org:8001", "grpcs", "triton.example.org:8001", True),
        ("http://localhost:8000/", "http", "localhost:8000", False),
        ("https://localhost:8443", "https", "localhost:8443", True),
    ],
)
def test_good_urls(url: str, scheme: str, address: str, secure: bool) -> None:
    config = load_config(url)
    assert (config.url, config.scheme, config.make_connection(None).address) == (url, scheme, address)
    assert (config.make_connection(None).tls is not None) is secure


@pytest.mark.parametrize(
    ("url", "is_grpc", "addresses"),
    [
        ("triton:8001", True, ("triton:8001",)),
        ("dns:///triton:8001", True, ("triton:8001",)),
        ("a:8001,b:8001,a:8001", True, ("a:8001", "b:8001")),
        ("grpcs://a:8001,[::1]:8001", True, ("a:8001", "[::1]:8001")),
        ("http://a:7860,b:7860/lychee", False, ("a:7860", "b:7860")),
        ("http://a:7860,http://b", False, ("a:7860", "b")),
    ],
)
def test_urls_of_replicas(url: str, is_grpc: bool, addresses: tuple[str, ...]) -> None:
    config = load_config(url)
    assert (config.is_grpc, config.addresses) == (is_grpc, addresses)
    assert config.make_connection(None, addresses[-1]).address == addresses[-1]
    assert isinstance(connect(config), Replicas)


def test_one_address_is_connected_to_without_detours() -> None:
    for url in ("localhost:8001", "127.0.0.1:8001", "http://[::1]:8000"):
        assert not isinstance(connect(load_config(url)), Replicas)


def test_shared_memory_needs_a_single_server() -> None:
    with pytest.raises(ConfigurationError, match="shared_memory"):
        load_config("localhost:8001,localhost:8011", shared_memory=True)


@pytest.mark.parametrize(
    "url",
    [
        *("a:1,", "a:1,b", "a:1,b:0", "a:1, b:1", "grpc://a:1,http://b:1", "dns:///grpc://a:1"),
        *("", "localhost", ":8001", "localhost:0", "localhost:65536", "a b:1", "::1:8001"),
        *("ftp://localhost:1", "grpcs://localhost", "localhost:8001/path", "http://user@host:1", "http://host/a b"),
    ],
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


@pytest.mark.parametrize("name", ["", "two words", "colon:", "ümlaut"])
def test_bad_header_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="header"):
        load_config(headers={name: "value"})


@pytest.mark.parametrize("value", ["line\nbreak", "schlüssel", 7])
def test_bad_header_values_are_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ConfigurationError, match="authorization") as caught:
        load_config(headers={"authorization": value})
    assert str(value) not in str(caught.value)


@pytest.mark.parametrize(("option", "value"), [("keepalive_s", 0), ("max_retries", -1), ("max_retries", 1.5)])
def test_bad_numbers_are_refused(option: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=option):
        load_config(**{option: value})


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pem")
    authority = trustme.CA()
    leaf = authority.issue_cert("client")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "chain.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "nonsense.pem").write_text("nonsense", encoding="utf-8")
    return {path.stem: path for path in folder.iterdir()}


def test_tls_reads_its_files(pem: dict[str, Path]) -> None:
    tls = TlsConfig(pem["ca"], pem["chain"], pem["key"])
    assert tls.read() == tuple(pem[name].read_bytes() for name in ("ca", "chain", "key"))
    assert load_config("grpcs://localhost:1", tls=tls).make_connection(None).tls == tls


@pytest.mark.parametrize(
    "names", [("missing", None, None), ("nonsense", None, None), ("ca", "chain", None), ("ca", "chain", "ca")]
)
def test_unusable_tls_files_are_refused(pem: dict[str, Path], names: tuple[str | None, ...]) -> None:
    paths = [None if name is None else pem.get(name, pem["ca"].with_name("missing.pem")) for name in names]
    with pytest.raises(ConfigurationError, match=r"tls|TlsConfig"):
        TlsConfig(*paths)


def test_tls_goes_with_a_secure_scheme(pem: dict[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match="grpcs://"):
        load_config("http://localhost:1", tls=TlsConfig(pem["ca"]))


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="strict, balanced, exploratory"):
        load_config(policy="lenient")


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("LYCHEE_CACHE_DIR")
    assert cache_dir().name == "lychee-rerank"
