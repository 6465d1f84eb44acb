"""A real Triton whose models obey the tests, a misbehaving proxy in front of it, and all four clients."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import trustme
from google.protobuf import text_format
from lychee_client import AsyncLycheeClient, LycheeClient, RerankResponse
from lychee_client.repository import newest_version
from lychee_server import TritonServer
from lychee_server.local_http import fetch
from tritonclient.grpc import model_config_pb2

from ..faults import FaultProxy

QUEUE_TIMEOUT_S = 0.2
MODEL_NAMES = ("text_encoder", "vision_encoder", "scoring_head_text", "scoring_head_image_text")
Protocol: TypeAlias = Literal["grpc", "http"]
Order: TypeAlias = Literal["work", "block", "fail", "nan", "nan in the second row"]
Connect: TypeAlias = Callable[..., "Caller"]


class Caller:
    """LycheeClient or AsyncLycheeClient, called the same way.

    Args:
        kind: The class.
        url: See there.
        **options: See there.
    """

    def __init__(self, kind: type[LycheeClient | AsyncLycheeClient], url: str, **options: Any) -> None:
        self._client = kind(url, **options)
        self._runner = asyncio.Runner()

    def score(self, *pair: Any, **options: Any) -> float:
        """See LycheeClient."""
        score: float = self._wait(self._client.score(*pair, **options))
        return score

    def rerank(self, *arguments: Any, **options: Any) -> RerankResponse:
        """See LycheeClient."""
        response: RerankResponse = self._wait(self._client.rerank(*arguments, **options))
        return response

    def close(self) -> None:
        """See LycheeClient."""
        if isinstance(self._client, LycheeClient):
            self._client.close()
        else:
            self._runner.run(self._client.aclose())
        self._runner.close()

    def _wait(self, outcome: Any) -> Any:
        return outcome if isinstance(self._client, LycheeClient) else self._runner.run(outcome)


class ControlledServer:
    """A real Triton with models that the test commands; see controlled_model.py.

    It serves the real `client_assets`, so our clients take it for the real server. The text models obey, with room for
    one waiting request in the queue of `scoring_head_text`; `vision_encoder` also obeys and lets no request wait longer
    than QUEUE_TIMEOUT_S; `scoring_head_image_text` expects shorter embeddings than the manifest says;
    `scoring_head_image` is missing.

    Args:
        repository: The exported one.
        folder: An empty one, to work in.
    """

    def __init__(self, repository: Path, folder: Path) -> None:
        self._orders = folder / "orders"
        self._orders.mkdir()
        self._folder = folder / "repository"
        self._folder.mkdir()
        (self._folder / "client_assets").symlink_to(repository / "client_assets", target_is_directory=True)
        self._add(repository, "text_encoder")
        vision_encoder = self._add(repository, "vision_encoder")
        text_head = self._add(repository, "scoring_head_text")
        short_head = self._add(repository, "scoring_head_image_text")
        policy = text_head.dynamic_batching.default_queue_policy
        policy.max_queue_size = 1
        policy.allow_timeout_override = True
        policy.default_timeout_microseconds = 60_000_000  # requests can only shorten it
        policy = vision_encoder.dynamic_batching.default_queue_policy
        policy.default_timeout_microseconds = round(1e6 * QUEUE_TIMEOUT_S)
        image_embedding = next(tensor for tensor in short_head.input if tensor.name == "image_embedding")
        image_embedding.dims[:] = [100]
        for config in (vision_encoder, text_head, short_head):
            self._write(config)
        self.triton = TritonServer(
            self._folder, http_port=0, grpc_port=0, metrics_port=0, log_path=folder / "triton.log"
        )

    def address(self, protocol: Protocol) -> str:
        """Return "HOST:PORT"."""
        return self.triton.grpc_url if protocol == "grpc" else self.triton.http_url

    def order(self, model_name: str, order: Order) -> None:
        """Tell a model what to do; it blocks until another order comes."""
        (self._orders / f"{model_name}.txt").write_text(order)

    def count_executed(self, model_name: str) -> int:
        """Return how many requests a model has begun to execute."""
        return len(self.executed(model_name))

    def executed(self, model_name: str) -> list[str]:
        """Return the ids of the requests that a model has begun to execute."""
        executed = self._orders / f"{model_name}.executed"
        return executed.read_text().splitlines() if executed.exists() else []

    def count_waiting(self, model_name: str) -> int:
        """Return how many requests wait in a model's queue."""
        metrics = fetch(self.triton.host, self.triton.metrics_port, "GET", "/metrics").decode()
        pending = re.search(rf'^nv_inference_pending_request_count{{model="{model_name}".*}} (\d+)', metrics, re.M)
        return 0 if pending is None else int(pending[1])

    def _add(self, repository: Path, name: str) -> Any:
        """Write a model with the tensors of the exported one, and return its configuration for changes."""
        exported = text_format.Parse((repository / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        config = model_config_pb2.ModelConfig(
            name=name,
            backend="python",
            max_batch_size=exported.max_batch_size,
            input=exported.input,
            output=exported.output,
            instance_group=[model_config_pb2.ModelInstanceGroup(kind="KIND_CPU", count=1)],
        )
        config.dynamic_batching.SetInParent()
        config.parameters["order"].string_value = str(self._orders / f"{name}.txt")
        version = self._folder / name / newest_version(repository / name).name
        version.mkdir(parents=True)
        (version / "model.py").symlink_to(Path(__file__).with_name("controlled_model.py"))
        self.order(name, "work")
        self._write(config)
        return config

    def _write(self, config: Any) -> None:
        (self._folder / config.name / "config.pbtxt").write_text(text_format.MessageToString(config))


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return as soon as the condition holds; fail if it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"the server did not get there within {timeout_s:g} s"
        time.sleep(0.01)


@dataclass(frozen=True)
class Certificates:
    """What the tests of TLS need; the server's is for 127.0.0.1, the client's for nobody in particular.

    Attributes:
        authority: Signed them.
        ca_path: Its certificate.
        other_ca_path: Of an authority that signed nothing.
        client_path: The client's certificate.
        client_key_path: Its private key.
    """

    authority: trustme.CA
    ca_path: Path
    other_ca_path: Path
    client_path: Path
    client_key_path: Path

    def server_context(self, host: str = "127.0.0.1", *, ask_client: bool = False) -> ssl.SSLContext:
        """Return the server's side for a host name, one that asks the client for its certificate if told so."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(host).configure_cert(context)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if ask_client:
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make an authority and certificates."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    client = authority.issue_cert("client.test")
    paths = [folder / name for name in ("ca.pem", "other-ca.pem", "client.pem", "client.key")]
    authority.cert_pem.write_to_path(paths[0])
    trustme.CA().cert_pem.write_to_path(paths[1])
    client.cert_chain_pems[0].write_to_path(paths[2])
    client.private_key_pem.write_to_path(paths[3])
    return Certificates(authority, *paths)


@pytest.fixture(scope="session")
def running(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlledServer]:
    """Run a Triton with obedient models."""
    server = ControlledServer(repository, tmp_path_factory.mktemp("controlled"))
    with server.triton:
        yield server


@pytest.fixture
def controlled(running: ControlledServer) -> Iterator[ControlledServer]:
    """Return the running server; after the test its models work again, and nobody waits for them."""
    yield running
    for model_name in MODEL_NAMES:
        running.order(model_name, "work")
    wait_until(lambda: all(running.count_waiting(model_name) == 0 for model_name in MODEL_NAMES))


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> Protocol:
    """Return each protocol in turn."""
    return "grpc" if request.param == "grpc" else "http"


@pytest.fixture(params=[LycheeClient, AsyncLycheeClient], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Return a function that makes a client, of each kind in turn; the clients are closed after the test."""
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> Caller:
            caller = Caller(request.param, url, **options)
            stack.callback(caller.close)
            return caller

        yield make


@pytest.fixture
def proxy(controlled: ControlledServer, protocol: Protocol) -> Iterator[FaultProxy]:
    """Put a proxy in front of the server's endpoint of the protocol."""
    with FaultProxy(controlled.address(protocol)) as proxy:
        yield proxy
